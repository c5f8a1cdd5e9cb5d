"""Refusals as ASGI sends them."""

from authz.asgi.protocol import Scope, Send
from authz.call.refusal import Refusal
from authz.errors import Code
from authz.http.forms import Form
from authz.http.headers import refusal_answer

_DENIAL = "websocket.http.response"

# RFC 6455 section 7.4.1 and IANA's "WebSocket Close Code Number Registry".
CLOSE_CODES = {
    Code.UNAUTHENTICATED: 3000,
    Code.PERMISSION_DENIED: 3003,
    Code.RESOURCE_EXHAUSTED: 1013,
    Code.UNAVAILABLE: 1013,
    Code.INTERNAL: 1011,
}
"""What closes a WebSocket, by the gRPC status: Unauthorized, Forbidden, Try Again Later, Internal Error."""


async def refuse(send: Send, refusal: Refusal, form: Form) -> None:
    """Answer a request with a refusal."""
    await _answer(send, "http.response", refusal, form)


async def refuse_websocket(scope: Scope, send: Send, refusal: Refusal) -> None:
    """Answer the handshake of a WebSocket with a refusal; a server that cannot send one answers 403."""
    if _DENIAL in (scope.get("extensions") or {}):
        await _answer(send, _DENIAL, refusal, Form.HTTP)
    else:
        await close_websocket(send, refusal)


async def close_websocket(send: Send, refusal: Refusal) -> None:
    """Close a WebSocket because of a refusal."""
    await send({"type": "websocket.close", "code": CLOSE_CODES[refusal.code], "reason": refusal.message})


async def _answer(send: Send, kind: str, refusal: Refusal, form: Form) -> None:
    status, headers, body = refusal_answer(refusal, form)
    await send({"type": f"{kind}.start", "status": status, "headers": list(headers)})
    await send({"type": f"{kind}.body", "body": body})
