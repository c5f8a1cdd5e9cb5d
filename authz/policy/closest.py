"""Finds the pattern that names a method most closely, among any number of them."""

from collections.abc import Iterable
from itertools import islice

from authz.policy.ends import Ends
from authz.policy.patterns import Patterns


class Closest:
    """Different patterns, of which one counts: a whole name before all others, then the longest, then the first.

    Args:
        patterns: as :class:`Patterns` writes them.

    """

    def __init__(self, patterns: Iterable[str]) -> None:
        texts = sorted(patterns, key=lambda text: -len(text))
        self._places = {text: place for place, text in enumerate(texts)}
        self._exact, prefixes, suffixes, self._any_text = Patterns.of(texts)
        self._prefixes = Ends(prefixes)
        self._suffixes = Ends(text[::-1] for text in suffixes)

    def of(self, method: str) -> str | None:
        """Return the pattern that counts for ``method``; ``None`` if none matches."""
        if method in self._exact:
            return method
        # Of nested prefixes the longest one comes first, and so it is with suffixes.
        found = [f"{text}*" for text in islice(self._prefixes.of(method), 1)]
        found += [f"*{text[::-1]}" for text in islice(self._suffixes.of(method[::-1]), 1)]
        if self._any_text and method:
            found.append("*")
        return min(found, key=self._places.__getitem__, default=None)
