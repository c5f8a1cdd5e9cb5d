"""Work for the page on a thread of its own, in slices so short that they hardly delay the threads that decide.

A thread that computes holds the GIL for five milliseconds while other threads wait, and one call in C for as long as
it takes. So work on many items rests after a few of them, and other threads go first.
"""

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

SLICE = 32
"""How many items are written before a rest: some 0.3 ms of computing."""

LONG_SLICE = 1000
"""The same for items that are only looked at."""

_REST_SECONDS = 0.001


def in_slices(items: Iterable[T], size: int = SLICE) -> Iterator[T]:
    """Yield ``items``, with a rest after every ``size`` of them; not for a thread that decides."""
    for number, item in enumerate(items, 1):
        yield item
        if number % size == 0:
            time.sleep(_REST_SECONDS)


def encoded(data: dict[str, Any]) -> bytes:
    """Return ``data`` as JSON in ASCII, because callers choose some texts; its lists are written in slices."""
    return b"{%s}" % b",".join(b"%s:%s" % (text_of(name), _value(value)) for name, value in data.items())


def text_of(item: object) -> bytes:
    """Return a short item as JSON."""
    return json.dumps(item, separators=(",", ":")).encode()


def joined(texts: Iterable[bytes]) -> bytes:
    """Return a JSON list of items that are JSON already."""
    return b"[%s]" % b",".join(texts)


def _value(value: object) -> bytes:
    return joined(map(text_of, in_slices(value))) if isinstance(value, list) else text_of(value)
