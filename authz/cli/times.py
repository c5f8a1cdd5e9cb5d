"""Times and durations as a person writes them, and times as a person reads them."""

import re
from datetime import UTC, datetime

from authz.errors import ConfigError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DURATION = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
# Ten digits are the years 2001 to 2286. Fewer are rather hours or days, and more milliseconds.
_POSIX = re.compile(r"\d{10}(\.\d{1,6})?", re.ASCII)
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def time_of(name: str, text: str, now: float) -> float:
    """Return the POSIX time that ``text`` says: RFC 3339 with a time zone, POSIX seconds, or ``now``.

    Args:
        name: of the option, for an error.
        text: as it was given.
        now: the time, in POSIX seconds.

    Raises:
        ConfigError: it says none.

    """
    text = text.strip()
    if text.lower() == "now":
        return now
    if _POSIX.fullmatch(text):
        return float(text)
    try:
        if _RFC_3339.fullmatch(text.upper()):
            return datetime.fromisoformat(text.upper()).timestamp()
    except ValueError:
        # Such as a 13th month.
        pass
    raise ConfigError(f"{name}: {text!a} is no time; give 2027-01-31T18:00:00Z, seconds since 1970, or now")


def seconds_of(text: str) -> float | None:
    """Return how many seconds a duration such as ``30m``, ``24h`` or ``7d`` has; ``None`` if it is none."""
    found = _DURATION.fullmatch(text.strip())
    return None if found is None else float(int(found[1]) * _SECONDS[found[2]])


def shown(seconds: float) -> str:
    """Return a POSIX time as RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
