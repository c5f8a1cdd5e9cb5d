"""Usage, grouped as somebody asks for it; the counts may come from a store, a decision log or this process."""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Literal, NamedTuple, cast, get_args

from authz.decisions.usage import DAY, HOUR, MINUTE, Row
from authz.errors import ConfigError

Column = Literal["organization", "client", "method", "verdict", "door", "minute", "hour", "day"]

COLUMNS: tuple[Column, ...] = get_args(Column)

# How many seconds each has, and how its begin is written.
_PERIODS = {"minute": (MINUTE, "%Y-%m-%dT%H:%MZ"), "hour": (HOUR, "%Y-%m-%dT%HZ"), "day": (DAY, "%Y-%m-%d")}


class Query(NamedTuple):
    """What is asked for.

    Args:
        by: by what counts are grouped.
        since: the POSIX time from which on decisions count.
        until: the one up to which.
        organization: the only one whose calls count; ``None`` for all.

    """

    by: tuple[Column, ...] = ("organization",)
    since: float = 0.0
    until: float = math.inf
    organization: str | None = None

    def includes(self, row: Row) -> bool:
        """Say whether ``row`` counts."""
        return self.since <= row.time < self.until and self.organization in (None, row.organization)


class Report:
    """Usage in groups.

    Args:
        query: what is asked for.

    Attributes:
        query: that.
        calls: how many calls there were in all groups.
        client_names: what applications are called, by client id; that stands beside each client.

    """

    def __init__(self, query: Query) -> None:
        self.query = query
        self.calls = 0
        self.client_names: dict[str, str] = {}
        # Of each group all calls, and those that were allowed.
        self._groups: dict[tuple[str | int, ...], list[int]] = {}
        self._places = [_Period(each) if each in _PERIODS else Row._fields.index(each) for each in query.by]

    def add(self, row: Row, count: int) -> None:
        """Count the calls of ``row``, if they are asked for."""
        if not self.query.includes(row):
            return
        self.calls += count
        key = tuple(place.begin(row.time) if isinstance(place, _Period) else row[place] for place in self._places)
        group = self._groups.setdefault(key, [0, 0])
        group[0] += count
        if row.verdict == "allowed":
            group[1] += count

    @property
    def clients(self) -> set[str]:
        """The clients that have groups of their own."""
        places = [place for place, column in enumerate(self.query.by) if column == "client"]
        return {str(key[place]) for place in places for key in self._groups}

    @property
    def group_columns(self) -> tuple[str, ...]:
        """The names of what says which group a line is about."""
        pairs = ((each, "client_name") if each == "client" else (each,) for each in self.query.by)
        return tuple(chain.from_iterable(pairs))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of what :meth:`lines` has: those of the groups, and of their counts."""
        return (*self.group_columns, "calls", *(() if "verdict" in self.query.by else ("allowed", "refused")))

    def lines(self) -> Iterator[tuple[str | int, ...]]:
        """Yield the groups: in the order of time, where they have one, and then those with the most calls first."""
        times = [index for index, each in enumerate(self.query.by) if each in _PERIODS]
        groups = [(tuple(key[index] for index in times), key, counts) for key, counts in self._groups.items()]
        for _, key, (calls, allowed) in sorted(groups, key=lambda group: (group[0], -group[2][0], group[1])):
            names = chain.from_iterable(map(self._named, self.query.by, self._places, key))
            yield (*names, calls, *(() if "verdict" in self.query.by else (allowed, calls - allowed)))

    def _named(self, column: Column, place: "_Period | int", part: str | int) -> tuple[str | int, ...]:
        if column == "client":
            return part, self.client_names.get(str(part), "")
        return (place.text(cast("int", part)) if isinstance(place, _Period) else part,)


class _Period:
    def __init__(self, name: str) -> None:
        self._seconds, self._format = _PERIODS[name]

    def begin(self, time: int) -> int:
        return time // self._seconds * self._seconds

    def text(self, time: int) -> str:
        return datetime.fromtimestamp(time, UTC).strftime(self._format)


def columns_of(names: Sequence[str]) -> tuple[Column, ...]:
    """Return the columns that somebody has named, each once.

    Raises:
        ConfigError: one of them is none.

    """
    wrong = [name for name in names if name not in COLUMNS]
    if wrong or not names:
        raise ConfigError(f"by: {' '.join(wrong)!a} is none of {', '.join(COLUMNS)}")
    return cast("tuple[Column, ...]", tuple(dict.fromkeys(names)))


def logged_row(data: Any) -> Row:
    """Return what one line of a decision log counts in, with its own time.

    Raises:
        KeyError, TypeError, ValueError: it is no decision.

    """
    names = [data[name] for name in Row._fields[1:]]
    time = datetime.fromisoformat(data["time"])
    if time.tzinfo is None or not all(isinstance(name, str) for name in names):
        raise ValueError
    return Row(math.floor(time.timestamp()), *names)
