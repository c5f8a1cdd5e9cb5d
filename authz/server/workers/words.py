"""The messages of a worker to its supervisor: lines of JSON, of which the supervisor takes what it understands.

A worker may be broken, and its messages must not harm the process that all workers depend on. So a line has a bound,
every value has a type, a flood is read at a bounded pace, and whatever else comes is ignored.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

MAX_TEXT = 1000
"""How many characters of a text are read."""

MAX_LINE = 16 * 1024
"""How many bytes a line may have; a text of :data:`MAX_TEXT` characters fits, however it is escaped."""

# Seconds between two reads: a worker that floods takes less than a tenth of the supervisor's time.
_PAUSE = 0.02
_READ = 4096
_LONGEST = 1e9


def line(said: dict[str, object]) -> bytes:
    """Return ``said`` as a line for the link."""
    short = {name: one_line(value) if isinstance(value, str) else value for name, value in said.items()}
    return json.dumps(short).encode() + b"\n"


def one_line(text: str) -> str:
    """Return the first :data:`MAX_TEXT` characters of ``text`` as one line that a terminal can show."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:MAX_TEXT]).strip()


def understood(said: bytes) -> dict[str, Any]:
    """Return what is understood of one line: known names, each with a value of its type."""
    try:
        told = json.loads(said)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(told, dict):
        return {}
    read = {name: _READERS[name](told[name]) for name in _READERS.keys() & told.keys()}
    return {name: value for name, value in read.items() if value is not None}


async def words(reader: asyncio.StreamReader, *, monotonic: Callable[[], float] = time.monotonic) -> AsyncIterator[Any]:
    """Yield what is understood of each read, until the link ends.

    Args:
        reader: the supervisor's end of the link.
        monotonic: the clock, in seconds.

    """
    rest, is_too_long = b"", False
    while True:
        began = monotonic()
        chunk = await reader.read(_READ)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        if lines and is_too_long:
            # The rest of a line whose beginning was dropped.
            del lines[0]
            is_too_long = False
        said: dict[str, Any] = {}
        for one in lines:
            if len(one) <= MAX_LINE:
                said |= understood(one)
        if said:
            yield said
        if len(rest) > MAX_LINE:
            rest, is_too_long = b"", True
        elif is_too_long:
            rest = b""
        # Only a worker that sends much waits here.
        await asyncio.sleep(_PAUSE - (monotonic() - began))


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return one_line(value) if isinstance(value, str) else None


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return None
    return float(min(value, _LONGEST))


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LONGEST else None


_READERS: dict[str, Callable[[object], object]] = {
    "able": _flag,
    "changes": _count,
    "listening": _flag,
    "stale": _flag,
    "unready": _text,
    "error": _text,
    "silent": _seconds,
}
