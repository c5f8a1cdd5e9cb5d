"""Divides what callers share, so that none of them uses up what another needs.

There are two rules: :class:`Shares` decides at once whether a caller may take a place, where
callers cannot be kept waiting; :class:`Turns` decides whose turn it is, where they can.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from authz.runtime import fork

T = TypeVar("T")


class Shares:
    """A number of places; a caller may take one more while it holds fewer than are free.

    So a caller alone gets half of them, and the next one half of the rest (dynamic thresholds, Choudhury and Hahne
    1998): later callers find room, however many there will be.

    Args:
        places: how many there are.

    """

    def __init__(self, places: int) -> None:
        self._places = places
        self.after_fork()
        fork.register(self)

    def take(self, key: Hashable) -> bool:
        """Take a place for ``key``, if it may have one; say whether it may."""
        with self._lock:
            held = self._held.get(key, 0)
            if held >= self._places - self.taken:
                return False
            self._held[key] = held + 1
            self.taken += 1
        return True

    def give_back(self, key: Hashable) -> None:
        """Give back a place that ``key`` has taken."""
        with self._lock:
            self.taken -= 1
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]

    def after_fork(self) -> None:
        """Start with every place free: the threads that have taken one are the parent's."""
        self._lock = threading.Lock()
        self._held: dict[Hashable, int] = {}
        self.taken = 0
        """How many are taken now."""

    def of(self, key: Hashable) -> "Share":
        """Return the places as ``key`` sees them."""
        return Share(self, key)


class Share:
    """One caller's view of the places, with the methods of a semaphore."""

    def __init__(self, shares: Shares, key: Hashable) -> None:
        self._shares, self._key = shares, key

    def acquire(self, *, blocking: bool = False) -> bool:  # noqa: ARG002 - no caller is kept waiting here
        """Take a place, if there is one for the caller; say whether there was."""
        return self._shares.take(self._key)

    def release(self) -> None:
        """Give a place back."""
        self._shares.give_back(self._key)


class Turns(Generic[T]):
    """A fair queue: so many are served at once, and callers take turns, however many of each wait.

    It holds no lock: its owner guards it.

    Args:
        at_once: how many may be served at a time.
        at_most: how many may wait. Beyond that the caller with the most waiting items loses its latest one.

    """

    def __init__(self, at_once: int, at_most: int) -> None:
        self._at_once, self._at_most = at_once, at_most
        self._serving = self._waiting = 0
        # By caller, in the order of their turns.
        self._queues: OrderedDict[Hashable, deque[T]] = OrderedDict()

    def join(self, key: Hashable, item: T) -> T | None:
        """Let ``item`` wait for a turn of ``key``; return the item that loses its place, perhaps ``item`` itself."""
        own = self._queues.setdefault(key, deque())
        own.append(item)
        self._waiting += 1
        if self._waiting <= self._at_most or self._serving < self._at_once:
            return None
        longest = max(self._queues, key=lambda other: len(self._queues[other]))
        return self._take(key if len(own) == len(self._queues[longest]) else longest, latest=True)

    def next(self) -> T | None:
        """Return the item whose turn it is, which is served until :meth:`leave`; ``None`` if none waits."""
        if self._serving == self._at_once or not self._queues:
            return None
        key = next(iter(self._queues))
        item = self._take(key)
        if key in self._queues:
            self._queues.move_to_end(key)
        self._serving += 1
        return item

    def leave(self) -> None:
        """Note that an item is no longer served."""
        self._serving -= 1

    def dismiss(self) -> list[T]:
        """Remove and return all items that wait."""
        waiting = [item for queue in self._queues.values() for item in queue]
        self._queues.clear()
        self._waiting = 0
        return waiting

    def _take(self, key: Hashable, *, latest: bool = False) -> T:
        queue = self._queues[key]
        item = queue.pop() if latest else queue.popleft()
        if not queue:
            del self._queues[key]
        self._waiting -= 1
        return item
