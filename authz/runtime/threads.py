"""Threads that go on for as long as the process does, even if what they call raises."""

import threading
import time
from collections.abc import Callable

from authz.runtime import telemetry

_PAUSE = 1.0


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


def _tell(error: BaseException) -> None:
    try:
        telemetry.event(
            telemetry.ERROR, "thread_died", thread=threading.current_thread().name, **telemetry.cause(error)
        )
    except BaseException:  # noqa: BLE001 - no memory, or a handler that fails: the work matters more than the log
        return
