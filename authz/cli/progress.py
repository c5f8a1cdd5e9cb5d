"""Shows a person how far a command has come; a program that reads its output sees nothing of it."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_STEP = 20_000
_ERASE = "\r\x1b[K"


def counted(items: Iterable[T], what: str) -> Iterator[T]:
    """Yield ``items``, and say on standard error how many there were so far, if that is a terminal.

    Args:
        items: any number.
        what: how to call several of them.

    """
    if not sys.stderr.isatty():
        yield from items
        return
    try:
        for number, item in enumerate(items):
            if number % _STEP == 0:
                sys.stderr.write(f"{_ERASE}{number:,} {what}")
                sys.stderr.flush()
            yield item
    finally:
        sys.stderr.write(_ERASE)
        sys.stderr.flush()
