"""What a forked child must forget: threads that it does not have, and locks that they held.

``os.fork`` copies memory but only the forking thread (pre-fork servers do it
after imports, perhaps after construction). Objects that own a lock, a thread
or a pending future register here and start afresh in the child.
"""

import os
from typing import Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """An object that can start afresh."""

    def after_fork(self) -> None:
        """Replace locks, and forget threads and futures, in a child just forked."""


_registered: "WeakSet[Forkable]" = WeakSet()


def register(instance: Forkable) -> None:
    """Have ``instance.after_fork`` called in every child, for as long as the instance lives."""
    _registered.add(instance)


def _reset_all() -> None:
    for instance in list(_registered):
        instance.after_fork()


# Windows knows no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
