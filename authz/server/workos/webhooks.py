"""Webhooks of WorkOS: each says that there is something to ask for, and nothing more.

They come late, twice and out of order, and through the Internet. So no order is ever made from one: its body is only
measured and compared with its signature, and then WorkOS itself is asked what has happened. Whatever is posted here,
true, forged or recorded, has no other effect than that this question is asked a little sooner.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.server.operations import web
from authz.server.workos.signature import Proof

PATH = "/webhooks/workos"
"""Where WorkOS posts them."""

MAX_BODY = 262_144
"""How many bytes a body may have."""

HEADER = "workos-signature"
"""What holds the signature."""

Result = Literal["signed", "refused"]

_TURNS_PER_SECOND = 20
_NOT_SIGNED, _TOO_LARGE, _TAKEN = 401, 413, 204


class Webhooks:
    """Takes webhooks.

    Args:
        secrets: those that may have signed.
        nudge: is called for each that was signed; it must not block, and may be called often.
        clock: tells the time.

    Attributes:
        counts: how many posts were signed, and how many refused.

    """

    def __init__(self, secrets: Sequence[str], nudge: Callable[[], object], *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._secrets, self._nudge, self._clock = tuple(secrets), nudge, clock
        self.counts = Counter[str](dict.fromkeys(get_args(Result), 0))

    def app(self) -> Starlette:
        """Return the ASGI application that takes them."""
        app = Starlette(routes=[Route(PATH, self._answer, methods=["POST"])])
        # There is one path, and one spelling of it.
        app.router.redirect_slashes = False
        return app

    async def _answer(self, request: Request) -> Response:
        # The caller is not told why it is refused.
        status = await self._status(request)
        result: Result = "signed" if status == _TAKEN else "refused"
        self.counts[result] += 1
        if result == "signed":
            self._nudge()
        return Response(status_code=status)

    async def _status(self, request: Request) -> int:
        proof = Proof.begun(request.headers.getlist(HEADER), self._secrets, self._clock.time())
        if proof is None:
            return _NOT_SIGNED
        length = 0
        try:
            async for piece in request.stream():
                length += len(piece)
                if length > MAX_BODY:
                    return _TOO_LARGE
                proof.update(piece)
        except ClientDisconnect:
            return _NOT_SIGNED
        return _TAKEN if proof.holds() else _NOT_SIGNED


def receiving(webhooks: Webhooks, address: str) -> contextlib.AbstractAsyncContextManager[str]:
    """Take webhooks until the end of the block; yield the address in force.

    Args:
        webhooks: takes them.
        address: ``HOST:PORT``; port 0 is any free one.

    Raises:
        ConfigError: the address cannot be bound.

    """
    return web.serving(
        webhooks.app(), address, setting="workos_webhooks", event="webhooks", turns_per_second=_TURNS_PER_SECOND
    )
