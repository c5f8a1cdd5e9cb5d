"""Work for the page on a thread of its own, in slices so short that the threads that decide hardly notice.

A thread that computes keeps the interpreter for five milliseconds when others want it, and one call in C for as long
as it takes. So whatever goes through many things rests after a few of them, which lets the others go first.
"""

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

SLICE = 32
"""How many things are looked at, or written, before a rest: some 0.3 ms of computing."""

LONG_SLICE = 1000
"""The same for things that are only looked at."""

_REST_SECONDS = 0.001


def in_slices(items: Iterable[T], size: int = SLICE) -> Iterator[T]:
    """Yield ``items``, with a rest after every ``size`` of them; never on a thread that decides."""
    for number, item in enumerate(items, 1):
        yield item
        if number % size == 0:
            time.sleep(_REST_SECONDS)


def encoded(data: dict[str, Any]) -> bytes:
    """Return ``data`` as JSON, its lists written in slices; in ASCII, for what a caller chose need not be Unicode."""
    return b"{%s}" % b",".join(b"%s:%s" % (text_of(name), _value(value)) for name, value in data.items())


def text_of(item: object) -> bytes:
    """Return ``item``, which is short, as JSON."""
    return json.dumps(item, separators=(",", ":")).encode()


def joined(texts: Iterable[bytes]) -> bytes:
    """Return a list in JSON of what is JSON already."""
    return b"[%s]" % b",".join(texts)


def _value(value: object) -> bytes:
    return joined(map(text_of, in_slices(value))) if isinstance(value, list) else text_of(value)
