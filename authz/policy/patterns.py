"""Texts as policies write them (gRFC A43): ``abc``, ``abc*``, ``*abc``, and ``*`` for anything that is not empty."""

from collections.abc import Iterable
from typing import NamedTuple


class Patterns(NamedTuple):
    """Alternatives, one of which must match.

    Args:
        exact: whole texts.
        prefixes: prefixes of texts.
        suffixes: suffixes of texts.
        any_text: whether any text that is not empty matches.

    """

    exact: frozenset[str]
    prefixes: tuple[str, ...]
    suffixes: tuple[str, ...]
    any_text: bool

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Patterns":
        """Return the patterns that ``texts`` stand for."""
        exact, prefixes, suffixes, any_text = [], [], [], False
        for text in texts:
            if text == "*":
                any_text = True
            elif text.endswith("*"):
                # Before the suffix, as in grpc-go: in "*abc*" the last star counts.
                prefixes.append(text[:-1])
            elif text.startswith("*"):
                suffixes.append(text[1:])
            else:
                exact.append(text)
        return cls(frozenset(exact), tuple(prefixes), tuple(suffixes), any_text)

    def matches(self, text: str) -> bool:
        """Say whether ``text`` is one of these."""
        return (
            text in self.exact
            or text.startswith(self.prefixes)
            or text.endswith(self.suffixes)
            or (self.any_text and text != "")
        )

    def covers(self, other: "Patterns") -> bool:
        """Say whether each pattern of ``other`` is covered by one pattern here, so that all its texts match."""
        if not all(map(self.matches, other.exact)):
            return False
        return self.any_text or (
            not other.any_text
            and all(prefix.startswith(self.prefixes) for prefix in other.prefixes)
            and all(suffix.endswith(self.suffixes) for suffix in other.suffixes)
        )
