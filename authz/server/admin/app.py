"""The page and its interface, as one ASGI application."""

import asyncio
import json
import re
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from authz.call.reasons import MEANINGS
from authz.call.verb import is_verb
from authz.call.words import is_scope
from authz.errors import ConfigError, UnavailableError
from authz.judge.orders.operator import NotKeptError
from authz.judge.orders.order import Kind, Order, Verb
from authz.runtime import telemetry
from authz.server.admin.backend import Question, Source
from authz.server.admin.guard import Guard, Secret, answer, refusal, written
from authz.server.admin.news import News
from authz.server.admin.slices import encoded
from authz.server.admin.usage import Used
from authz.server.coalescing import PAUSE, Coalesced, Paced

MAX_BODY_BYTES = 16_384
"""How long a request body may be, including a token."""

_MAX_CURSOR = 4096
# The explanation of each rule may repeat them.
_MAX_SCOPES = 2048
_BODY_SECONDS = 10.0
# Explanations of tokens may wait for keys; further ones are refused at once.
_MAX_EXPLANATIONS = 4
# As a part of the pause between looks: an operator asks one question after the other.
_EXPLANATION_SHARE = 0.2

_STATIC = Path(__file__).with_name("static")
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_ID = re.compile(r"[!-~]{1,256}")
# Of what each verb is by default.
_KINDS: dict[Verb, Kind] = {
    **dict.fromkeys(("suspend", "resume"), "organization"),
    **dict.fromkeys(("revoke", "reinstate"), "client"),
}
_ORDER = {"verb", "kind", "id", "issuer", "issued_before", "until", "reason", "by"}
# Who gives an order and does not say who it is; more than that the secret does not tell.
_BY = "admin page"
_METHOD = re.compile(r"/[^\s?#]{1,1024}")


class _MisusedError(Exception):
    """A request that is not understood; ``args`` are the status and what is wrong."""


def admin_app(
    source: Source,
    *,
    secret: str = "",
    hosts: frozenset[str] | None = frozenset(),
    pause: float = PAUSE,
    used: Used | None = None,
) -> ASGIApp:
    """Return the application.

    Args:
        source: what the page asks: this process, or several workers.
        secret: what an operator must show to suspend or revoke; empty if that is off.
        hosts: see :class:`authz.server.admin.guard.Guard`.
        pause: seconds between one look at the source and the next, however many clients ask.
        used: answers how much an organization uses.

    """
    admin = _Admin(source, Secret(secret), pause)
    routes = [
        *(Route("/" if path.name == "index.html" else f"/{path.name}", _static(path)) for path in _STATIC.iterdir()),
        Route("/api/about", admin.about),
        Route("/api/decisions", admin.decisions),
        Route("/api/overview", admin.overview),
        Route("/api/policy", admin.policy),
        Route("/api/usage", (used or Used(None, 0)).answer),
        Route("/api/explain", admin.explain, methods=["POST"]),
        Route("/api/orders", admin.order, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {_MisusedError: _misused, UnavailableError: _unavailable, Exception: _unforeseen}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), hosts)


class _Admin:
    def __init__(self, source: Source, secret: Secret, pause: float) -> None:
        self._source, self._secret = source, secret
        self._news = Coalesced(self._look_for_news, pause=pause)
        self._overview = Coalesced(self._look_over, pause=pause)
        self._policy = Coalesced(self._look_at_policy, pause=pause)
        self._explaining = asyncio.Semaphore(_MAX_EXPLANATIONS)
        self._explanations = Paced(pause * _EXPLANATION_SHARE)

    async def about(self, _request: Request) -> Response:
        """Answer what does not change."""
        return answer({"version": version("grpc-org-authz"), "can_act": self._secret.is_set, "meanings": MEANINGS})

    async def decisions(self, request: Request) -> Response:
        """Answer the decisions after a cursor."""
        after = request.query_params.get("after", "")
        if len(after) > _MAX_CURSOR:
            raise _MisusedError(400, "after: give the cursor of an answer")
        return written((await self._news.get()).after(after))

    async def overview(self, _request: Request) -> Response:
        """Answer the organizations that call, and how often calls were refused, by reason."""
        return written(await self._overview.get())

    async def policy(self, _request: Request) -> Response:
        """Answer the rules in force."""
        return written(await self._policy.get())

    async def explain(self, request: Request) -> Response:
        """Answer how a call would be decided, and why."""
        question = _question(await _body(request))
        if self._explaining.locked():
            return refusal(429, "Other questions are being answered. Try again.")
        async with self._explaining, self._explanations.turn():
            return answer(await self._source.explain(question))

    async def order(self, request: Request) -> Response:
        """Carry out an order of the operator."""
        refused = self._secret.refuse(request)
        if refused is not None:
            return refused
        order = _order(await _body(request))
        try:
            done = await self._source.order(order)
        except ConfigError as error:
            return refusal(409, f"{error}.")
        except NotKeptError as error:
            return refusal(507, f"It is in force, but may not last: {error}.")
        return answer({**done, "verb": order.verb, "id": order.id})

    # On a thread, in slices: in a single process the event loop decides calls.

    async def _look_for_news(self) -> News:
        return await asyncio.to_thread(News, await self._source.decisions())

    async def _look_over(self) -> bytes:
        return await asyncio.to_thread(encoded, {**await self._source.overview(), "now": time.time()})

    async def _look_at_policy(self) -> bytes:
        return await asyncio.to_thread(encoded, await self._source.policy())


async def _body(request: Request) -> dict[str, Any]:
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise _MisusedError(413, f"At most {MAX_BODY_BYTES} bytes.")
        data = json.loads(body)
    except (TimeoutError, ClientDisconnect):
        raise _MisusedError(408, "The request did not come in time.") from None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise _MisusedError(400, "Send a JSON object.")
    return data


def _question(data: dict[str, Any]) -> Question:
    texts = {name: data.pop(name, "") for name in ("method", "verb", "token", "organization", "client", "scopes")}
    if data or not all(isinstance(text, str) for text in texts.values()):
        raise _MisusedError(400, "Give method, verb, and token or organization, client and scopes, each as text.")
    texts = {name: text.strip() for name, text in texts.items()}
    if not _METHOD.fullmatch(texts["method"]):
        raise _MisusedError(400, "method: give a full name, such as /ledger.v1.Ledger/List.")
    verb = texts["verb"] or "POST"
    if not is_verb(verb):
        raise _MisusedError(400, "verb: give an HTTP method in capitals, such as GET.")
    # With what stands before it in a header: operators copy it from there.
    token = re.sub(r"(?i)^(authorization: *)?bearer +", "", texts["token"])
    if token and (texts["organization"] or texts["client"] or texts["scopes"]):
        raise _MisusedError(400, "token: it names the caller; give it, or organization, client and scopes.")
    if not all(name == "" or _ID.fullmatch(name) for name in (texts["organization"], texts["client"])):
        raise _MisusedError(400, "organization, client: give the id that a token would have.")
    if len(texts["scopes"]) > _MAX_SCOPES or not all(map(is_scope, texts["scopes"].split())):
        raise _MisusedError(400, f"scopes: give scopes, in at most {_MAX_SCOPES} characters.")
    scopes = tuple(texts["scopes"].split())
    return Question(texts["method"], token, texts["organization"], texts["client"], scopes, verb)


def _order(data: dict[str, Any]) -> Order:
    verb, name = data.get("verb"), data.get("id")
    if not isinstance(verb, str) or verb not in _KINDS or not data.keys() <= _ORDER:
        raise _MisusedError(400, "verb: give suspend, resume, revoke or reinstate, and an id.")
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise _MisusedError(400, "id: give the id of an organization, a client, a key or a token.")
    try:
        order = Order(**{"kind": _KINDS[verb], "by": _BY, **data})
        order.check()
    except ConfigError as error:
        raise _MisusedError(400, f"{error}.") from None
    return order


def _static(path: Path) -> Any:
    content, media_type = path.read_bytes(), _TYPES[path.suffix]

    async def page(_request: Request) -> Response:
        return Response(content, media_type=media_type)

    return page


async def _misused(_request: Request, error: _MisusedError) -> Response:
    status, words = error.args
    return refusal(status, words)


async def _unavailable(_request: Request, _error: UnavailableError) -> Response:
    return refusal(503, "No worker answers. They may be starting; try again.")


async def _unforeseen(_request: Request, error: Exception) -> Response:
    telemetry.unforeseen("admin", error)
    return refusal(500, "Something unforeseen happened; see the server's log.")
