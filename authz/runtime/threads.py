"""Threads that go on for as long as the process does, even if what they call raises."""

import threading
import time
from collections.abc import Callable

from authz.runtime import fork, telemetry

_PAUSE = 1.0

WORK_SECONDS = 0.0005
"""How long such work goes on. Python itself takes the interpreter from a thread after 5 ms, for which others wait."""

REST_SECONDS = 0.001
"""How long it rests then."""


def restarting(work: Callable[[], object]) -> Callable[[], None]:
    """Return a target for a thread: it runs ``work`` until that returns, and restarts it whenever it raises.

    Each restart is logged (``thread_died``), and comes after a second, so that work that fails at once does not keep a
    core busy.
    """

    def run() -> None:
        while True:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - SystemExit as well: without this thread its work is not done
                _tell(error)
                time.sleep(_PAUSE)
            else:
                return

    return run


class Pace:
    """The pace of long work, so that no thread that decides waits for long: call :meth:`step` after each step."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def step(self) -> None:
        """Rest, if there has been no rest for a moment."""
        if time.perf_counter() - self._since >= WORK_SECONDS:
            time.sleep(REST_SECONDS)
            self._since = time.perf_counter()


class Repeating:
    """A thread that does the same work again and again until it is stopped, in every forked child as well.

    Args:
        name: of the thread.
        work: does the work once, and returns after how many seconds it wants to do it again, if it is not woken.

    """

    def __init__(self, name: str, work: Callable[[], float]) -> None:
        self._name, self._work = name, work
        self._thread: threading.Thread | None = None
        self._stopped, self._woken = threading.Event(), threading.Event()
        fork.register(self, starts_thread=True)

    @property
    def is_this_thread(self) -> bool:
        """Whether this code runs in that thread."""
        return threading.current_thread() is self._thread

    @property
    def is_stopped(self) -> bool:
        """Whether the thread is to end, or has not begun."""
        return self._thread is None or self._stopped.is_set()

    def start(self) -> None:
        """Begin the work."""
        self._stopped, self._woken = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=restarting(self._run), name=self._name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Have the work done again as soon as it is done; any number of calls meanwhile count as one."""
        self._woken.set()

    def stop(self) -> None:
        """End the thread; work under way has ended when this returns."""
        self._stopped.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def after_fork(self) -> None:
        """Work in the child as well, if the parent did."""
        if self._thread is not None:
            self.start()

    def _run(self) -> None:
        stopped, woken = self._stopped, self._woken
        while not stopped.is_set():
            pause = self._work()
            woken.wait(pause)
            woken.clear()


def _tell(error: BaseException) -> None:
    try:
        telemetry.event(
            telemetry.ERROR, "thread_died", thread=threading.current_thread().name, **telemetry.cause(error)
        )
    except BaseException:  # noqa: BLE001 - no memory, or a handler that fails: the work matters more than the log
        return
