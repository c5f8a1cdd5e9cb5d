"""How a stream of a ``grpc.server`` ends before its handler does.

Nothing public ends an RPC of a ``grpc.server`` with a status from another
thread than the handler's. So the handler's own thread does it, when it comes
by for the next message; a handler that does not come by is cancelled a second
later, which its client sees as CANCELLED.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import grpc

from authz.call.refusal import Refusal
from interceptors.status import status_of

COURTESY = 1.0
"""Seconds that a handler has to come by with a message before its RPC is cancelled."""


def abort(context: grpc.ServicerContext, refusal: Refusal) -> NoReturn:
    """End the RPC that this thread serves."""
    code, message, trailers = status_of(refusal)
    context.set_trailing_metadata(trailers)
    context.abort(code, message)


class SyncStream:
    """One streaming RPC; see :class:`authz.judge.streams.Stream`.

    Args:
        context: grpc's own.
        refuse: makes what the caller sees.
        send: what a non-blocking handler sends its messages with (``experimental_non_blocking``), or ``None``.

    """

    def __init__(
        self,
        context: grpc.ServicerContext,
        refuse: Callable[[Exception], Refusal],
        send: Callable[[Any], None] | None = None,
    ) -> None:
        self._context = context
        self._refuse = refuse
        self._send = send
        self._is_finished = False
        self._ending = threading.Lock()
        self.wake: Callable[[], None] = _nothing
        """Called when the RPC must end, to fetch a thread of its own that waits."""
        self.refusal: Refusal | None = None
        """Why the RPC must end, or ``None`` as long as it may go on."""

    def end(self, error: Exception) -> float | None:
        """See :class:`authz.judge.streams.Stream`."""
        with self._ending:
            is_first = self.refusal is None
            refusal = self.refusal = self.refusal or self._refuse(error)
        if not is_first:
            if self._context.is_active():
                self._context.cancel()
            return None
        if self._send is not None and not self._is_finished:
            # No thread waits in such a handler, so this one may end it.
            code, message, trailers = status_of(refusal)
            self._context.set_trailing_metadata(trailers)
            self._context.set_code(code)
            self._context.set_details(message)
            self._send(None)
        self.wake()
        return COURTESY

    def send(self, reply: Any) -> None:
        """Send a message of a non-blocking handler, or ``None`` for the end, unless the RPC has been ended."""
        with self._ending:
            # grpc would send a second status, which fails.
            if self.refusal is not None or self._is_finished or self._send is None:
                return
            self._is_finished = reply is None
        self._send(reply)

    def check(self) -> None:
        """Abort the RPC, on the handler's own thread, if it must end and has not been ended."""
        if self.refusal is not None and self._send is None:
            abort(self._context, self.refusal)


def _nothing() -> None:
    pass


def watched(replies: Iterator[Any], stream: SyncStream) -> Iterator[Any]:
    """Yield the replies of a handler, until its stream must end."""
    while True:
        try:
            reply = next(replies)
        except StopIteration:
            break
        if stream.refusal is not None:
            break
        yield reply
    stream.check()
