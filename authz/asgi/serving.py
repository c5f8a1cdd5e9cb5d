"""How an application serves one request that was admitted, and how that ends before the application ends it."""

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable
from typing import Any, cast

from authz.asgi.protocol import App, Message, Receive, Scope, Send
from authz.call.principal import ANONYMOUS, Principal
from authz.call.refusal import Refusal
from authz.http.door import HttpDoor
from authz.http.headers import Sorted
from authz.http.serving import HttpRequest
from authz.judge.hearing import Hearing
from authz.runtime.flow import arun

SERVING = "authz.serving"
"""The key of a scope under which its :class:`Serving` is found by what the application declares for single routes."""


class Serving(HttpRequest):
    """One request from its verdict on.

    As a :class:`authz.judge.streams.Stream` it ends like the block of ``asyncio.timeout``: the task is cancelled.

    Args:
        door: who was asked.
        hearing: its hearing.
        headers: those that the client has sent.
        scope: the request.
        send: sends to the client.

    Attributes:
        principal: who makes the request.

    """

    _is_over = _is_interrupted = False

    def __init__(self, door: HttpDoor, hearing: Hearing, headers: Sorted, scope: Scope, send: Send) -> None:
        super().__init__(door, hearing)
        self._headers, self._scope, self._send = headers, scope, send

    @abstractmethod
    def send(self, message: Message) -> Awaitable[None]:
        """Send a message of the application.

        Raises:
            OverError: the request is over.

        """

    @abstractmethod
    async def finish(self, refusal: Refusal) -> None:
        """Tell the client why its request is refused or over, as far as that can still be told."""

    async def run(self, app: App, receive: Receive, principal: Principal) -> None:
        """Have ``app`` serve the request.

        Args:
            app: the application.
            receive: receives what the client sends.
            principal: who makes the request.

        """
        self.admit(principal)
        self._tell_handlers()
        entered = self.enter()
        try:
            await app(self._scope, receive, self.send)
        except asyncio.CancelledError:
            if not self._is_interrupted or self._task.cancelling() > self._cancelling + 1:
                # Another cancellation than ours: the server ends, or the client has gone.
                raise
        except Exception:
            if self._refusal is None:
                raise
        finally:
            self.exit(entered)
            # Each holds the other, which the garbage collector would have to find out.
            self._scope.pop(SERVING, None)
            if self._is_interrupted:
                self._task.uncancel()
            self.leave()
        if self._refusal is not None:
            await self.finish(self._refusal)

    def _tell_handlers(self) -> None:
        # In the scope itself, which outer middleware may keep and read.
        scope, principal = self._scope, self.principal
        scope["headers"] = [*self._headers.kept, *self._door.telling.headers(principal)]
        # Copied: a server may give every request the same one.
        told = {"principal": principal, "organization": self._hearing.evidence.organization}
        scope["state"] = {**(scope.get("state") or {}), **told}
        scope[SERVING] = self

    async def open(self) -> None:
        """Have the judge end the request from now on when it must end.

        Raises:
            OverError: it must end now.

        """
        if self._is_open or self._is_handed_over or self.principal is ANONYMOUS:
            return
        self._loop = asyncio.get_running_loop()
        # There is one: the middleware is a coroutine.
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._cancelling = self._task.cancelling()
        await arun(self.opening())

    def leave(self) -> None:
        """Tell the judge and the observers that the request is over; what the application still does goes on."""
        self._is_over = True
        super().leave()

    def interrupt(self) -> None:
        """Cancel the task."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        if not self._is_over and not self._is_interrupted:
            self._is_interrupted = True
            self._task.cancel()
