"""A handler of a ``grpc.server`` on a thread of its own, so that the RPC can end while the handler is blocked.

The server's own thread waits for the handler's next reply or for the end of
the stream, whichever comes first, and so is free to send the status.
"""

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .streams import SyncStream


class _Done(NamedTuple):
    """The handler has finished: its result, or the exception that it raised."""

    result: Any
    error: BaseException | None = None


_ENDED = object()


class Relay:
    """Run ``serve`` on a thread of its own, and pass on its replies.

    The handler is asked for one reply at a time, as it would be without a relay.

    Args:
        stream: the stream whose end the relay waits for, too.
        serve: the handler, with its arguments.

    """

    def __init__(self, stream: SyncStream, serve: Callable[[], Any]) -> None:
        self._stream = stream
        self._serve = serve
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._asked = threading.Semaphore(0)
        self._is_over = False
        stream.wake = lambda: self._items.put(_ENDED)

    def reply(self) -> Any:
        """Return the reply of the handler."""
        self._start(self._serve)
        return self._next().result

    def replies(self) -> Iterator[Any]:
        """Yield the replies of the handler."""
        self._start(self._produce)
        while True:
            self._asked.release()
            item = self._next()
            if isinstance(item, _Done):
                return
            yield item

    def stop(self) -> None:
        """Note that the RPC is over: the handler is closed when it has made its next reply."""
        self._is_over = True
        self._asked.release()

    def _start(self, work: Callable[[], Any]) -> None:
        # The stream may have ended before this relay could be woken.
        self._stream.check()
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._run, work), name="authz-relay", daemon=True).start()

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self._items.put(_Done(work()))
        except BaseException as error:  # noqa: BLE001 - raised again on grpc's own thread
            self._items.put(_Done(None, error))

    def _produce(self) -> None:
        replies = self._serve()
        try:
            while self._wanted():
                try:
                    reply = next(replies)
                except StopIteration:
                    return
                self._items.put(reply)
        finally:
            close = getattr(replies, "close", None)
            if close is not None:
                close()

    def _wanted(self) -> bool:
        self._asked.acquire()
        return not self._is_over

    def _next(self) -> Any:
        item = self._items.get()
        if item is _ENDED:
            self._stream.check()
        if isinstance(item, _Done) and item.error is not None:
            raise item.error
        return item
