"""Reads the text of a file in pieces: one call over all of a large one would stop every other thread for long."""

import codecs
import io
import json
import re
from collections.abc import Callable
from typing import Any

PIECE = 64 * 2**10
"""So many bytes are read at once."""


def _mark(pattern: str) -> re.Pattern[str]:
    """Return the pattern of a mark of JSON, in which a space stands for any blanks."""
    return re.compile(pattern.replace(" ", r"[ \t\n\r]*"))


# What is rarer, such as an escape in a key, is left to a reader of the whole.
_BLANKS, _BEGIN, _KEY = _mark(" ()"), _mark(r" ([{\[]?) "), _mark(r'"([^"\\\x00-\x1f]*)" : ')
_NO_ENTRIES, _AFTER_ENTRY = _mark("(}?) "), _mark(" ([,}]) ")
_NO_ITEMS, _AFTER_ITEM = _mark(r"(\]?) "), _mark(r" ([,\]]) ")
# How deep mappings and lists are read entry by entry: the document, and what it lists.
_DEPTH = 2


class Doubt(Exception):  # noqa: N818 - it never leaves this package
    """Only a reader of the whole document can say what is wrong with it, or that nothing is."""


def check_text(content: bytes) -> None:
    """Check that ``content`` is UTF-8.

    Raises:
        UnicodeDecodeError: it is not.

    """
    decode = codecs.getincrementaldecoder("utf-8")().decode
    with memoryview(content) as view:
        for begin in range(0, len(content), PIECE):
            decode(view[begin : begin + PIECE])
    decode(b"", final=True)


def stream_of(content: bytes) -> io.BytesIO:
    """Return ``content`` as a file that begins after a byte order mark; it is not copied."""
    stream = io.BytesIO(content)
    stream.seek(len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0)
    return stream


def json_of(content: bytes, pairs_hook: Callable[[list[tuple[str, Any]]], Any]) -> Any:
    """Return what ``json.loads`` would: it reads the entries of a mapping one by one, and those of what that lists.

    Args:
        content: UTF-8.
        pairs_hook: makes a mapping of its pairs.

    Raises:
        Doubt: the document is no such mapping, or something is wrong with it.

    """
    return _Scanner(content, pairs_hook).document()


class _Scanner:
    """A window over a text, and how much of it has been read.

    Nothing is taken for a value or a mark that might go on after the window.
    """

    def __init__(self, content: bytes, pairs_hook: Callable[[list[tuple[str, Any]]], Any]) -> None:
        self._stream = stream_of(content)
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._scan = json.JSONDecoder(object_pairs_hook=pairs_hook).raw_decode
        self._window, self._at = "", 0

    def document(self) -> Any:
        if self._passed(_BEGIN) != "{":
            raise Doubt
        entries = self._entries(1)
        self._passed(_BLANKS)
        if self._at < len(self._window):
            raise Doubt
        return entries

    def _entries(self, depth: int) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        if self._passed(_NO_ENTRIES):
            return entries
        while True:
            key = self._passed(_KEY)
            if key in entries:
                raise Doubt
            entries[key] = self._value() if depth == _DEPTH else self._inner(depth)
            if self._passed(_AFTER_ENTRY) == "}":
                return entries

    def _items(self, depth: int) -> list[Any]:
        items: list[Any] = []
        if self._passed(_NO_ITEMS):
            return items
        while True:
            items.append(self._value() if depth == _DEPTH else self._inner(depth))
            if self._passed(_AFTER_ITEM) == "]":
                return items

    def _inner(self, depth: int) -> Any:
        begin = self._passed(_BEGIN)
        if not begin:
            return self._value()
        return self._entries(depth + 1) if begin == "{" else self._items(depth + 1)

    def _value(self) -> Any:
        while True:
            try:
                value, end = self._scan(self._window, self._at)
            except ValueError:
                # It may go on after the window.
                if not self._reads_more():
                    raise Doubt from None
                continue
            if end < len(self._window) or not self._reads_more():
                self._at = end
                return value

    def _passed(self, pattern: re.Pattern[str]) -> str:
        """Pass what matches ``pattern``, and return its group."""
        while True:
            found = pattern.match(self._window, self._at)
            if (found is None or found.end() == len(self._window)) and self._reads_more():
                continue
            if found is None:
                raise Doubt
            self._at = found.end()
            return found[1]

    def _reads_more(self) -> bool:
        """Have the window begin with what has not been read, and hold twice as much; return whether there is more."""
        rest = self._window[self._at :]
        piece = self._stream.read(max(PIECE, len(rest)))
        if not piece:
            return False
        self._window, self._at = rest + self._decode(piece), 0
        return True
