"""The body of a request whose message is checked before its handler gets it."""

import functools
from typing import Any

from authz.asgi.protocol import Message, Receive, Scope
from authz.call.principal import Principal
from authz.http.headers import Sorted
from authz.http.messages import check_kind, check_length
from authz.http.paths import with_query
from authz.judge.in_force import Isolation
from authz.policy.protos.isolation import unverified


async def checked(
    isolation: Isolation, scope: Scope, headers: Sorted, receive: Receive, principal: Principal
) -> Receive:
    """Check which organization a request names; return what its handler receives it by.

    Raises:
        PermissionDeniedError: it names another organization than that of ``principal``, or may name one.

    """
    path, verb = _routed(scope)
    if verb != "POST" or not isolation.looks_at(path):
        # A WebSocket has no body either.
        check_unread(isolation, scope, principal)
        return receive
    encodings = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"content-encoding"]
    check_kind(headers.kinds, encodings)
    body = await _read(receive)
    isolation.check_request(path, verb, principal, lambda: body)
    return functools.partial(_again, [{"type": "http.request", "body": body, "more_body": False}], receive)


def check_unread(isolation: Isolation, scope: Scope, principal: Principal) -> None:
    """Check which organization a request names, as far as that is known without its body.

    Raises:
        PermissionDeniedError: it names another organization than that of ``principal``, or may name one.

    """
    isolation.check_request(*_routed(scope), principal, bytes)


def _routed(scope: Scope) -> tuple[str, str]:
    """Return the path of a request with its query, and its HTTP method."""
    return with_query(scope["path"], scope.get("query_string", b"").decode("latin-1")), scope.get("method", "GET")


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise unverified("the body is not complete")
        part = message.get("body", b"")
        size += len(part)
        check_length(size)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _again(read: list[Any], receive: Receive) -> Message:
    return read.pop() if read else await receive()
