"""Test credentials work in tests only, unless the program is told to have them; then that is said aloud.

A test is known by its runner, which stands on the stack: neither a variable that a program inherits nor a module that
it happens to import makes it one.
"""

import functools
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from types import FrameType

from authz.runtime import telemetry
from authz.settings.variables import TESTING

# Not the whole of unittest: programs use unittest.mock.
_RUNNERS = ("_pytest.", "unittest.case", "unittest.loader", "unittest.main", "unittest.suite")

_ALLOW = "authz.testing.allow()"

_told: set[str] = set()


def allow() -> None:
    """Permit test credentials in this process, although neither pytest nor unittest runs it.

    For test runners of another kind, and for programs that a test starts. A program that serves others must never
    call it: all code there could act as any organization. It is logged when they are first used.
    """
    _told.add(_ALLOW)


def check_tested(name: str) -> None:
    """Refuse to go on unless a test is running, or this process may have test credentials without one.

    Args:
        name: what is used, of :mod:`authz.testing`.

    Raises:
        RuntimeError: neither is so.

    """
    if _is_test():
        return
    # Exactly this: another value may have been meant to say no.
    told = [f"{TESTING}=1"] if os.environ.get(TESTING) == "1" else sorted(_told)
    if not told:
        raise RuntimeError(
            f"authz.testing.{name} is for tests, and neither pytest nor unittest runs this program;"
            f" if it is a test of another kind, call {_ALLOW} first, or set {TESTING}=1"
        )
    _tell(told[0])


def _is_test() -> bool:
    # Tests start threads, and wait for them on the main thread.
    main = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 - documented all the same
    return any(_name(frame).startswith(_RUNNERS) for top in (sys._getframe(), main) for frame in _stack(top))  # noqa: SLF001 - as above


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _name(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


# Remembered, so that it is said once.
@functools.cache
def _tell(told: str) -> None:
    telemetry.event(telemetry.WARNING, "test_credentials", allowed_by=told)
    # For programs that have not set up logging as well.
    warnings.warn(
        f"test credentials are in force, as {told} says: this program must not serve others", RuntimeWarning, 4
    )
