"""Long work beside threads that answer calls: made to delay them less, in programs of this project only.

It changes settings of the whole process, which a library must leave to the program that uses it.
"""

import contextlib
import gc
import sys
from collections.abc import Iterator

from authz.runtime import fork

# Seconds that a thread computes while another one waits; Python's default is five milliseconds.
_TURN = 0.0005

# How many more objects there may be before the collector runs.
_SELDOM, _AS_USUAL = 50_000, gc.get_threshold()


class _Background:
    """The settings of the process as they were before work in the background changed them."""

    def __init__(self) -> None:
        self._lock = fork.Lock()
        self._before: tuple[float, bool] | None = None
        self.is_allowed = False
        fork.register(self)

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        if not self.is_allowed:
            yield
            return
        with self._lock:
            self._before = sys.getswitchinterval(), gc.isenabled()
            try:
                sys.setswitchinterval(min(_TURN, self._before[0]))
                # The collector would run for the many new objects, and stop all threads meanwhile.
                gc.disable()
                yield
            finally:
                self.after_fork()

    def after_fork(self) -> None:
        if self._before is None:
            return
        (interval, collects), self._before = self._before, None
        sys.setswitchinterval(interval)
        if collects:
            gc.enable()


_background = _Background()


def collect_seldom() -> None:
    """Look for garbage less often, while this process loads: there is hardly any among the many new objects."""
    gc.set_threshold(_SELDOM)


def collect_as_usual() -> None:
    """Look for garbage as often as Python does, and never again among what is there now, which lives until the end."""
    gc.freeze()
    gc.set_threshold(*_AS_USUAL)


def allow_background() -> None:
    """Let :func:`background` change the process, for a program that owns it, such as ``authz serve``."""
    _background.is_allowed = True


def background() -> contextlib.AbstractContextManager[None]:
    """Have this thread give way to other threads while it computes in the block; one block at a time.

    Until the end of the block threads take turns more often, and no garbage is collected. Without
    :func:`allow_background` nothing of the kind happens.
    """
    return _background.work()
