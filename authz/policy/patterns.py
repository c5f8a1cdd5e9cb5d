"""Texts as policies write them (gRFC A43): ``abc``, ``abc*``, ``*abc``, and ``*`` for anything that is not empty."""

from collections.abc import Iterable
from typing import NamedTuple


class Patterns(NamedTuple):
    """Alternatives, of which one must match.

    Args:
        exact: whole texts.
        prefixes: how texts begin.
        suffixes: how texts end.
        any_text: whether any text will do that is not empty.

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
                # First, as grpc-go has it: of "*abc*" the last star is the one that counts.
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
        """Say whether every text that ``other`` matches is matched here, by one pattern for each of its own."""
        if not all(map(self.matches, other.exact)):
            return False
        return self.any_text or (
            not other.any_text
            and all(prefix.startswith(self.prefixes) for prefix in other.prefixes)
            and all(suffix.endswith(self.suffixes) for suffix in other.suffixes)
        )
