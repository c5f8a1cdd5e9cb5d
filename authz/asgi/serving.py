"""How an application serves one request that was admitted, and how that ends before the application ends it."""

import asyncio
import threading
from abc import ABC, abstractmethod
from typing import Any, cast

from authz.asgi.protocol import App, Message, Receive, Scope, Send
from authz.asgi.requests import Admission
from authz.call.principal import ANONYMOUS, reset_current_principal, set_current_principal
from authz.call.refusal import Refusal
from authz.errors import AuthzError
from authz.http.door import HttpDoor, are_limited
from authz.runtime.flow import arun

SERVING = "authz.serving"
"""The key of a scope under which its :class:`Serving` is found by what the application declares for single routes."""


class OverError(OSError):
    """The application sends although its request is over; what servers raise when the client has gone."""


class Serving(ABC):
    """One request that was admitted; built in the task that serves it.

    As a :class:`authz.judge.streams.Stream` it ends like the block of ``asyncio.timeout``: the task is cancelled.

    Args:
        door: who is asked.
        admission: what has been found out.
        send: sends to the client.

    Attributes:
        principal: who makes the request.

    """

    def __init__(self, door: HttpDoor, admission: Admission, send: Send) -> None:
        self._door, self._admission = door, admission
        self.principal = admission.principal
        self._send = send
        self._loop = asyncio.get_running_loop()
        # There is one: the middleware is a coroutine.
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._cancelling = self._task.cancelling()
        self._ending, self._telling = threading.Lock(), threading.Lock()
        self._is_open = self._is_over = self._is_told = self._is_interrupted = False
        self._refusal: Refusal | None = None

    @abstractmethod
    async def send(self, message: Message) -> None:
        """Send a message of the application."""

    @abstractmethod
    async def finish(self, refusal: Refusal) -> None:
        """Tell the client why its request is over, as far as that can still be told."""

    async def run(self, app: App, scope: Scope, receive: Receive) -> None:
        """Have ``app`` serve the request."""
        if not are_limited(self._admission.hearing):
            self.tell()
        scope[SERVING] = self
        token = set_current_principal(self.principal)
        try:
            await app(scope, receive, self.send)
        except asyncio.CancelledError:
            if not self._is_interrupted or self._task.cancelling() > self._cancelling + 1:
                # Another cancellation than ours: the server ends, or the client has gone.
                raise
        except Exception:
            if self._refusal is None:
                raise
        finally:
            reset_current_principal(token)
            self._is_over = True
            if self._is_interrupted:
                self._task.uncancel()
            self.close()
            self.tell()
        if self._refusal is not None:
            await self.finish(self._refusal)

    def tell(self) -> None:
        """Tell the observers that the request is allowed, unless they know what became of it."""
        with self._telling:
            is_told, self._is_told = self._is_told, True
        if not is_told:
            self._admission.hearing.allowed(self._admission.seconds)

    async def open(self) -> None:
        """Have the judge end the request from now on when it must end.

        Raises:
            OverError: it must end now.

        """
        if self._is_open or self.principal is ANONYMOUS:
            return
        self._is_open = True
        hearing = self._admission.hearing
        try:
            opening = self._door.open(self, hearing, self.principal)
            if opening is not None:
                await arun(opening)
        except Exception as error:  # noqa: BLE001 - whatever happened, the judge could not end it
            self._is_open = False
            with self._ending:
                self._refusal = hearing.ended(error) if self._is_told else hearing.refused(error)
            self._is_told = True
        if self._refusal is not None:
            raise OverError

    def refuse(self, error: AuthzError) -> Refusal:
        """Refuse the request after all, whatever the application answers from now on; return what its caller sees.

        Args:
            error: what its route asks for and it lacks.

        """
        self.tell()
        with self._ending:
            self._refusal = refusal = self._admission.hearing.refused_by_route(error)
        return refusal

    def close(self) -> None:
        """Tell the judge that the request is over."""
        if self._is_open:
            self._is_open = False
            self._door.close(self)

    def end(self, error: Exception) -> float | None:
        """See :class:`authz.judge.streams.Stream`."""
        with self._ending:
            if self._refusal is not None:
                return None
            self.tell()
            self._refusal = self._admission.hearing.ended(error)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._interrupt)
        return None

    def _interrupt(self) -> None:
        if not self._is_over and not self._is_interrupted:
            self._is_interrupted = True
            self._task.cancel()
