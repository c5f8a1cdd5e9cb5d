"""A bounded memory for results that are cheaper to remember than to compute again."""

import contextlib
from collections.abc import Iterator
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

# For each entry that comes, two that are forgotten go, each a key and a value.
_AT_ONCE = 4


class Memory(dict[K, V]):
    """A dictionary that forgets everything when it is full.

    Each operation is one operation of a dictionary, so it is as quick and needs no lock. What is forgotten is freed a
    little at a time: to free thousands at once would stop every thread for milliseconds.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._going: list[K | V] = []

    def remember(self, key: K, value: V) -> None:
        """Put in ``value``."""
        if len(self) >= self._size:
            self._going = [*self, *self.values()]
            self.clear()
        self[key] = value
        if self._going:
            del self._going[-_AT_ONCE:]

    def let_go(self) -> Iterator[None]:
        """Forget an entry at each step, and free it."""
        while self:
            # Another thread may forget all.
            with contextlib.suppress(KeyError):
                self.popitem()
            yield
        while self._going:
            del self._going[-_AT_ONCE:]
            yield
