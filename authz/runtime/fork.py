"""What a forked child must forget: threads that it does not have, and locks that they held.

``os.fork`` copies memory but only the forking thread (pre-fork servers do it
after imports, perhaps after construction). Objects that own a thread, a pending
future, or a lock other than :class:`Lock`, register here and start afresh in the child.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """An object that can start afresh in a child."""

    def after_fork(self) -> None:
        """Replace locks, and forget threads and futures, in a child just forked."""


_registered: "WeakSet[Forkable]" = WeakSet()
_starting: "WeakSet[Forkable]" = WeakSet()
_runs_programs = False


def register(instance: Forkable, *, starts_thread: bool = False) -> None:
    """Have ``instance.after_fork`` called in every child, for as long as the instance lives.

    Args:
        instance: the object.
        starts_thread: whether it starts a thread there, which needs what others start afresh, and so comes last.

    """
    (_starting if starts_thread else _registered).add(instance)


@contextlib.contextmanager
def running_programs() -> Iterator[None]:
    """Let nothing start afresh in children that are forked in the block, as they only become another program.

    Their threads would do for a moment what those of the parent do, such as saying that another replica is there.
    """
    global _runs_programs  # noqa: PLW0603 - one for the process, as its hooks are
    before, _runs_programs = _runs_programs, True
    try:
        yield
    finally:
        _runs_programs = before


def _reset_all() -> None:
    if _runs_programs:
        return
    for instance in [*_registered, *_starting]:
        instance.after_fork()


class Lock:
    """A lock that is free in a forked child; slower than a ``threading.Lock``, so not for one that every call takes."""

    def __init__(self) -> None:
        self.after_fork()
        register(self)

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent may hold."""
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        """Wait for the lock, and take it."""
        lock = self._lock
        lock.acquire()
        # After a fork inside the block the child leaves the block too, and must release the old lock.
        self._held = lock

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self._held.release()


# Windows knows no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
