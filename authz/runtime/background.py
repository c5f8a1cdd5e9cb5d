"""Work that takes long, done so that threads with an answer to give hardly notice."""

import contextlib
import gc
import sys
import threading
from collections.abc import Iterator

from authz.runtime import fork

# How long a thread computes while another one waits; Python's default is five milliseconds.
_TURN = 0.0005


class _Background:
    """What work in the background has changed for the whole process, and what that was before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._before: tuple[float, bool] | None = None
        fork.register(self)

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        with self._lock:
            self._before = sys.getswitchinterval(), gc.isenabled()
            try:
                sys.setswitchinterval(min(_TURN, self._before[0]))
                # Ten thousand new objects look like many to collect, and a collection stops all threads.
                gc.disable()
                yield
            finally:
                self._restore()

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._restore()

    def _restore(self) -> None:
        if self._before is None:
            return
        (interval, collects), self._before = self._before, None
        sys.setswitchinterval(interval)
        if collects:
            gc.enable()


_background = _Background()


def background() -> contextlib.AbstractContextManager[None]:
    """Have whatever this thread computes in the block give way to other threads; one block at a time.

    Threads change more often meanwhile, and nobody looks for garbage. Both end with the block.
    """
    return _background.work()
