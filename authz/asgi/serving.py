"""How an application serves one request that was admitted, and how that ends before the application ends it."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Any, cast

from authz.asgi.protocol import App, Message, Receive, Scope, Send
from authz.call.principal import ANONYMOUS, Principal, reset_current_principal, set_current_principal
from authz.call.refusal import Refusal
from authz.errors import AuthzError
from authz.http.door import HttpDoor
from authz.http.headers import Sorted
from authz.judge.hearing import Hearing
from authz.runtime import fork
from authz.runtime.flow import arun

SERVING = "authz.serving"
"""The key of a scope under which its :class:`Serving` is found by what the application declares for single routes."""

# For flags of any request that the loop and a thread of the judge may set at the same time: rarely, and briefly.
_lock = fork.Lock()


class OverError(OSError):
    """The application sends although its request is over; what servers raise when the client has gone."""


class Serving(ABC):
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

    principal = ANONYMOUS

    _is_open = _is_over = _is_told = _is_ending = _is_interrupted = False
    _refusal: Refusal | None = None
    _seconds = 0.0

    def __init__(self, door: HttpDoor, hearing: Hearing, headers: Sorted, scope: Scope, send: Send) -> None:
        self._door, self._hearing, self._headers, self._scope, self._send = door, hearing, headers, scope, send

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
        self.principal = principal
        self._seconds = self._hearing.seconds
        quota = self._hearing.evidence.quota
        if not self._is_told and (quota is None or quota.concurrent_streams is None):
            self._is_told = True
            self._hearing.allowed(self._seconds)
        self._tell_handlers()
        token = set_current_principal(principal)
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
            reset_current_principal(token)
            # Each holds the other, which the garbage collector would have to find out.
            self._scope.pop(SERVING, None)
            if self._is_interrupted:
                self._task.uncancel()
            self.close()
            if not self._is_told:
                self.tell()
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

    def tell(self) -> None:
        """Tell the observers that the request is allowed, unless they know what became of it."""
        if self._is_told:
            return
        with _lock:
            is_told, self._is_told = self._is_told, True
        if not is_told:
            self._hearing.allowed(self._seconds)

    async def open(self) -> None:
        """Have the judge end the request from now on when it must end.

        Raises:
            OverError: it must end now.

        """
        if self._is_open or self.principal is ANONYMOUS:
            return
        self._is_open = True
        self._loop = asyncio.get_running_loop()
        # There is one: the middleware is a coroutine.
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._cancelling = self._task.cancelling()
        try:
            opening = self._door.open(self, self._hearing, self.principal)
            if opening is not None:
                await arun(opening)
        except Exception as error:  # noqa: BLE001 - whatever happened, the judge could not end it
            self._is_open = False
            self._refusal = self._hearing.ended(error) if self._is_told else self._hearing.refused(error)
            self._is_told = True
        if self._refusal is not None:
            raise OverError

    def refuse(self, error: AuthzError) -> Refusal:
        """Refuse the request after all, whatever the application answers from now on; return what its caller sees.

        Args:
            error: what its route asks for and it lacks.

        """
        self.tell()
        self._refusal = refusal = self._hearing.refused_by_route(error)
        return refusal

    def close(self) -> None:
        """End nothing any more: the client has all that it will get."""
        self._is_over = True
        if self._is_open:
            self._is_open = False
            self._door.close(self)

    def end(self, error: Exception) -> float | None:
        """See :class:`authz.judge.streams.Stream`."""
        with _lock:
            is_ending, self._is_ending = self._is_ending, True
        if is_ending:
            return None
        self.tell()
        self._refusal = self._hearing.ended(error)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._interrupt)
        return None

    def _interrupt(self) -> None:
        if not self._is_over and not self._is_interrupted:
            self._is_interrupted = True
            self._task.cancel()
