"""Finds the prefixes of a text among many: the nearest of them in order, and those that it begins with itself."""

import heapq
from bisect import bisect_right
from collections.abc import Iterable, Iterator

_CHUNK = 1_000


class Ends:
    """Different texts, to be found by the texts that begin with them.

    Args:
        texts: any number; equal ones count once.

    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts: list[str] = []
        self._shorter: list[int] = []
        # The texts that the one before begins with, each one a prefix of the next.
        nested: list[int] = []
        for text in ascending(texts):
            if self._texts and text == self._texts[-1]:
                continue
            while nested and not text.startswith(self._texts[nested[-1]]):
                nested.pop()
            self._shorter.append(nested[-1] if nested else -1)
            nested.append(len(self._texts))
            self._texts.append(text)

    def __iter__(self) -> Iterator[str]:
        """Yield every text once, each after its own prefixes."""
        return iter(self._texts)

    def of(self, text: str) -> Iterator[str]:
        """Yield those with which ``text`` begins, the longest first."""
        # All that stands between a text and a prefix of it begins with that prefix, too.
        place = bisect_right(self._texts, text) - 1
        while place >= 0 and not text.startswith(self._texts[place]):
            place = self._shorter[place]
        while place >= 0:
            yield self._texts[place]
            place = self._shorter[place]


def ascending(texts: Iterable[str]) -> Iterator[str]:
    """Yield ``texts`` in order, sorted by pieces: other threads would have to wait for one long sort."""
    chunks: list[list[str]] = [[]]
    for text in texts:
        if len(chunks[-1]) == _CHUNK:
            chunks.append([])
        chunks[-1].append(text)
    for chunk in chunks:
        chunk.sort()
    return heapq.merge(*chunks)
