"""How a stream of a ``grpc.server`` ends before its handler does.

gRPC has no public way to end an RPC of a ``grpc.server`` with a status from
another thread than the handler's. So the handler's own thread does it, when
it sends or reads its next message. If it does neither for a second, the RPC
is cancelled, which the client sees as CANCELLED.

Where thousands must end, their threads begin to one after the other, for other
calls would have to wait until all of these have had the interpreter.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import grpc

from authz.call.refusal import Refusal
from authz.runtime.alarms import Spaced

from .handlers import status_of

COURTESY = 1.0
"""Seconds that a handler has to send or read a message before its RPC is cancelled."""

FEW, SPACE = 8, 0.0008
"""So many handlers are woken or cancelled at once, and one after so many seconds when there are more. It takes a thread
0.3 to 0.4 ms of CPU to end its RPC."""

_ends = Spaced("authz-ends", few=FEW, seconds=SPACE)


def abort(context: grpc.ServicerContext, refusal: Refusal) -> NoReturn:
    """End the RPC that this thread serves with ``refusal``."""
    code, message, trailers = status_of(refusal)
    context.set_trailing_metadata(trailers)
    context.abort(code, message)


class SyncStream:
    """One streaming RPC; see :class:`authz.judge.streams.Stream`.

    Args:
        context: grpc's own.
        refuse: returns what the caller sees of an error.
        look: see :meth:`authz.judge.streams.OpenStreams.look`.
        send: the function with which a non-blocking handler (``experimental_non_blocking``) sends its messages;
            ``None`` for other handlers.

    """

    __slots__ = ("_context", "_ending", "_is_finished", "_look", "_refuse", "_send", "refusal", "wake")

    def __init__(
        self,
        context: grpc.ServicerContext,
        refuse: Callable[[Exception], Refusal],
        look: Callable[["SyncStream"], None],
        send: Callable[[Any], None] | None = None,
    ) -> None:
        self._context = context
        self._refuse, self._look = refuse, look
        self._send = send
        self._is_finished = False
        self._ending = threading.Lock()
        self.wake: Callable[[], None] = _nothing
        """Called when the RPC must end: wakes the thread that waits for a relayed handler."""
        self.refusal: Refusal | None = None
        """Why the RPC must end, or ``None`` as long as it may go on."""

    def end(self, error: Exception) -> float | None:
        """See :class:`authz.judge.streams.Stream`."""
        with self._ending:
            is_first = self.refusal is None
            refusal = self.refusal = self.refusal or self._refuse(error)
        if not is_first:
            _ends.call(self._cancel)
            return None
        if self._send is not None and not self._is_finished:
            # A non-blocking handler occupies no thread, so any thread may end its RPC.
            code, message, trailers = status_of(refusal)
            self._context.set_trailing_metadata(trailers)
            self._context.set_code(code)
            self._context.set_details(message)
            self._send(None)
        if self.wake is not _nothing:
            _ends.call(self.wake)
        return COURTESY

    def _cancel(self) -> None:
        if self._context.is_active():
            self._context.cancel()

    @property
    def must_end(self) -> bool:
        """Whether the RPC must end, and no message of it may go on."""
        if self.refusal is None:
            self._look(self)
        return self.refusal is not None

    def send(self, reply: Any) -> None:
        """Send a message of a non-blocking handler, or ``None`` for the end, unless the RPC has been ended."""
        if self.must_end:
            return
        with self._ending:
            # Without this check grpc would send a second status, and fail.
            if self.refusal is not None or self._is_finished or self._send is None:
                return
            self._is_finished = reply is None
        self._send(reply)

    def check(self) -> None:
        """Abort the RPC, on the handler's own thread, if it must end and has not been ended."""
        if self.must_end and self.refusal is not None and self._send is None:
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
        if stream.must_end:
            break
        yield reply
    stream.check()
