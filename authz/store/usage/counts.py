"""How much each organization uses, as all replicas together have counted it.

For each hour and for each day (UTC) there is a hash for each application that has called, with a field for each method,
verdict and door; and one for all of them together, without the methods, which also says which applications there are.
In fields methods are numbers, because hashes with fields that short take a third of the memory.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote

from authz.decisions.usage import DAY, HOUR, MAX_METHODS, OTHER, Row
from authz.decisions.usage_report import Query, Report
from authz.errors import ConfigError
from authz.store.connection import Script, Store, StoreError

_T = TypeVar("_T")

KEPT_DAYS = 35
"""For how many days counts of whole days are kept, unless it is set otherwise."""

MAX_DAYS = 3660
"""For how many days they can be kept."""

HOURS_KEPT = 48
"""How long counts of single hours are kept."""

REMEMBERED_SECONDS = 7 * DAY
"""How long the store remembers which counts it has added, so that it adds none twice."""

# In one key space of a cluster, because one step adds to many of them.
_PREFIX = "u:{u}:"
_VERDICTS = {"allowed": "a", "denied": "d", "undecided": "u", "failed": "f"}
_DOORS = {
    "envoy": "e",
    "grpc": "g",
    "grpc_aio": "a",
    "asgi": "h",
    "wsgi": "w",
    "fastapi": "f",
    "connect": "c",
    "forward_auth": "p",
    "other": "o",
}
_UNNUMBERED = "x"
_CODES = {v + d: (verdict, door) for verdict, v in _VERDICTS.items() for door, d in _DOORS.items()}
# How many fields or hashes are read at a time: the store answers no other client meanwhile.
_PAGE = 500

# KEYS: what the sender has sent so far, the methods of the day, and the hashes.
_ADD = Script("""
local batch = cjson.decode(ARGV[1])
if tonumber(redis.call('GET', KEYS[1]) or '0') >= batch.number then return 0 end
redis.call('SET', KEYS[1], batch.number, 'EX', batch.remembered)
local numbers = {}
for place, method in ipairs(batch.methods) do
  local number = redis.call('HGET', KEYS[2], method)
  if not number then
    number = redis.call('HLEN', KEYS[2])
    if number < batch.most then redis.call('HSET', KEYS[2], method, number) else number = 'x' end
  end
  numbers[place] = number
end
redis.call('EXPIREAT', KEYS[2], batch.ends)
for place, hash in ipairs(batch.hashes) do
  local key = KEYS[place + 2]
  for _, each in ipairs(hash.counts) do
    redis.call('HINCRBY', key, (numbers[each[1]] or '') .. each[2], each[3])
  end
  redis.call('EXPIREAT', key, hash.ends)
end
return 1
""")


class _Period(NamedTuple):
    letter: str
    seconds: int
    kept: int

    def begin(self, time: float) -> int:
        return math.floor(time / self.seconds) * self.seconds

    def end(self, time: float) -> int:
        return math.ceil(time / self.seconds) * self.seconds

    def key(self, time: int) -> str:
        return f"{_PREFIX}{self.letter}{time // self.seconds}"

    def ends(self, time: int) -> int:
        return self.begin(time) + self.seconds + self.kept


class UsageStore:
    """Counts in the store.

    Args:
        store: where they are.
        days: how long they are kept.

    """

    def __init__(self, store: Store, *, days: int = KEPT_DAYS) -> None:
        self._store = store
        self._hours, self._days = _Period("h", HOUR, HOURS_KEPT * HOUR), _Period("d", DAY, days * DAY)

    def add(self, sender: str, number: int, rows: Mapping[Row, int]) -> bool:
        """Add counts, in one step; return false if they have been added already.

        Args:
            sender: who counted; the name must be new whenever its numbers begin anew.
            number: 1 for the first, and then one more each time; the same as before if it is not known whether they
                have been added.
            rows: what was counted, all on one day.

        Raises:
            StoreError: they were not added, as far as is known.

        """
        places: dict[str, int] = {}
        hashes: dict[str, tuple[int, Counter[tuple[int, str]]]] = {}
        ends = 0
        for row, count in rows.items():
            code = f"{_VERDICTS[row.verdict]}{_DOORS[row.door]}"
            who = f"{_quoted(row.organization)} {_quoted(row.client)}"
            place = 0 if row.method == OTHER else places.setdefault(_clean(row.method), len(places) + 1)
            # Hours may be kept for longer than their day.
            ends = self._days.end(row.time + 1) + max(self._days.kept, self._hours.kept)
            for period in (self._hours, self._days):
                key, until = period.key(row.time), period.ends(row.time)
                of_all = hashes.setdefault(key, (until, Counter()))
                of_one = hashes.setdefault(f"{key}:{who}", (until, Counter()))
                of_all[1][0, f"{who} {code}"] += count
                of_one[1][place, code if place else f"{_UNNUMBERED}{code}"] += count
        batch = {
            "number": number,
            "remembered": REMEMBERED_SECONDS,
            "most": MAX_METHODS,
            "methods": list(places),
            "ends": ends,
            "hashes": [
                {"ends": until, "counts": [[*field, count] for field, count in counts.items()]}
                for until, counts in hashes.values()
            ],
        }
        day = next(iter(rows)).time
        keys = [f"{_PREFIX}sent:{sender}", self._methods_key(day), *hashes]
        return bool(self._store.call(_ADD, [self._store.key(key) for key in keys], [json.dumps(batch)]))

    def read(self, query: Query, now: float) -> Report:
        """Return the usage that ``query`` asks for; the query in the report says for which whole hours or days.

        Args:
            query: what is asked for.
            now: the time, in POSIX seconds.

        Raises:
            ConfigError: it asks for times that are not kept.
            StoreError: the store does not answer.

        """
        since, until = self._kept(query, now)
        report = Report(query._replace(since=since, until=query.until if query.until >= now else until))
        for row, count in self.rows(query, now):
            report.add(row, count)
        return report

    def rows(self, query: Query, now: float) -> Iterator[tuple[Row, int]]:
        """Yield what :meth:`read` puts into groups; with :data:`OTHER` for methods unless it is grouped by them."""
        since, until = self._kept(query, now)
        has_methods, methods = "method" in query.by, dict[int, dict[str, str]]()
        try:
            with self._store.asking() as client:
                for period, time in self._periods(since, until, is_by_hour="hour" in query.by):
                    index = self._store.key(period.key(time))
                    callers = self._callers(client, index, query.organization)
                    if not has_methods:
                        for who, codes in callers.items():
                            for code, count in codes.items():
                                yield Row(time, *_names(who), OTHER, *_CODES[code]), count
                    else:
                        day = self._days.begin(time)
                        methods[day] = methods.get(day) or self._methods(client, day)
                        yield from _calls(client, index, time, callers, methods[day])
        except (KeyError, ValueError):
            raise StoreError("format", self._store.address) from None

    def _kept(self, query: Query, now: float) -> tuple[int, int]:
        """Return begin and end of what is asked for, in whole hours as far as those are kept, else in whole days."""
        if "minute" in query.by:
            raise ConfigError("by: the store has no minutes; take hour, or count decision logs")
        oldest = self._hours.begin(now - self._hours.kept)
        begin = max(query.since, now - self._days.kept)
        end = min(query.until, now)
        since = self._hours.begin(begin) if begin >= oldest else self._days.begin(begin)
        has_hours = max(since, self._days.begin(end)) >= oldest
        until = self._hours.end(end) if has_hours else self._days.end(end)
        if "hour" in query.by and since < oldest:
            raise ConfigError(
                f"by: the store has single hours of the last {HOURS_KEPT} only; take day, or a later since"
            )
        # Of today there is no more than the whole day has.
        return since, until if query.until < now else self._days.end(now)

    def _periods(self, since: int, until: int, *, is_by_hour: bool) -> Iterator[tuple[_Period, int]]:
        time = since
        while time < until:
            is_whole_day = time == self._days.begin(time) and time + DAY <= until
            period = self._days if is_whole_day and not is_by_hour else self._hours
            yield period, time
            time += period.seconds

    def _callers(self, client: Any, index: str, organization: str | None) -> dict[str, dict[str, int]]:
        """Return who has called, as in the keys, and how often by codes."""
        # One that is asked for alone is found in fewer steps, because the answers are short.
        wanted = {} if organization is None else {"match": f"{_quoted(organization)} *"}
        callers: dict[str, dict[str, int]] = {}
        for field, count in client.hscan_iter(index, count=_PAGE if organization is None else 10 * _PAGE, **wanted):
            who, _, code = field.decode().rpartition(" ")
            # Each may come twice.
            callers.setdefault(who, {})[code] = int(count)
        return callers

    def _methods(self, client: Any, day: int) -> dict[str, str]:
        found = client.hgetall(self._store.key(self._methods_key(day)))
        return {number.decode(): method.decode() for method, number in found.items()}

    def _methods_key(self, time: int) -> str:
        return f"{self._days.key(time)}:methods"


def _calls(
    client: Any, index: str, time: int, callers: Iterable[str], methods: Mapping[str, str]
) -> Iterator[tuple[Row, int]]:
    """Yield how often each method was called by those who have called."""
    for page in _pages(callers):
        pipeline = client.pipeline(transaction=False)
        for who in page:
            pipeline.hgetall(f"{index}:{who}")
        for who, counts in zip(page, pipeline.execute(), strict=True):
            names = _names(who)
            for field, count in counts.items():
                number, code = field[:-2].decode(), field[-2:].decode()
                yield Row(time, *names, methods.get(number, OTHER), *_CODES[code]), int(count)


def _clean(text: str) -> str:
    # A lone surrogate fits into no store.
    return text if text.isascii() else text.encode(errors="replace").decode()


def _quoted(name: str) -> str:
    return quote(_clean(name), safe="")


def _names(text: str) -> tuple[str, str]:
    organization, _, client = text.partition(" ")
    return unquote(organization), unquote(client)


def _pages(items: Iterable[_T]) -> Iterator[list[_T]]:
    rest = iter(items)
    while page := list(islice(rest, _PAGE)):
        yield page
