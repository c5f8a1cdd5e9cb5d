"""A bounded memory for results that are cheaper to remember than to compute again."""

import contextlib
from collections.abc import Iterator
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Memory(dict[K, V]):
    """A dictionary that forgets everything when it is full.

    Each operation is one operation of a dictionary, so it is as quick and needs no lock.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def remember(self, key: K, value: V) -> None:
        """Put in ``value``."""
        if len(self) >= self._size:
            self.clear()
        self[key] = value

    def let_go(self) -> Iterator[None]:
        """Forget an entry at each step: to free thousands at once would stop every thread for milliseconds."""
        while self:
            # Another thread may forget all.
            with contextlib.suppress(KeyError):
                self.popitem()
            yield
