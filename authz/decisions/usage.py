"""How much each organization uses: decisions counted by organization, client, method, verdict, door and minute.

Counts are kept in memory until they are taken. What callers may choose, such as the name of a method, cannot fill that
memory: where there is no room, a decision is counted in a coarser row, whose names are :data:`OTHER`. None is lost.
"""

import threading
from collections import Counter
from typing import NamedTuple

from authz.decisions.decision import MAX_METHOD, Decision
from authz.runtime import fork
from authz.runtime.shares import Shares

OTHER = "(other)"
"""Stands for every name that is not counted by itself; no method and no id of an organization reads so."""

MAX_METHODS = 4096
"""How many methods are counted by their names, half of those that are free by one organization."""

MAX_ROWS = 50_000
"""How many rows are kept in full between one :meth:`Usage.take` and the next; see :class:`Rows`."""

MINUTE, HOUR, DAY = 60, 3600, 86_400


class Row(NamedTuple):
    """What is counted together.

    Args:
        time: the POSIX second at which its minute begins; where rows are coarser, its hour or day.
        organization: who called; empty without a token that could be believed.
        client: with which application.
        method: what was called.
        verdict: the outcome, in a word.
        door: where the calls came in.

    """

    time: int
    organization: str
    client: str
    method: str
    verdict: str
    door: str


class Rows(Counter[Row]):
    """How often each row was counted, within bounds; it holds no lock: its owner guards it.

    An organization may have half of the rows that are free. Further ones of it are counted without client and method;
    and once there are as many of those, without the organization, and by the hour.

    Args:
        at_most: how many rows are kept in full.

    """

    def __init__(self, at_most: int = MAX_ROWS) -> None:
        super().__init__()
        self._at_most = at_most
        self._shares = Shares(at_most)
        self._coarse = 0
        self.coarser = 0
        """How many decisions were counted in coarser rows than was asked for."""

    def takes(self, row: Row) -> bool:
        """Say whether ``row`` is counted in full; if it is new, it takes a place."""
        return row in self or self._shares.take(row.organization)

    def add(self, row: Row, count: int) -> None:
        """Count ``row`` ``count`` times more, or where there is no room the row that it becomes part of."""
        if not self.takes(row):
            coarse = row._replace(client=OTHER, method=OTHER)
            self.coarser += 0 if row == coarse else count
            row = coarse
            if row not in self:
                self._coarse += 1
                if self._coarse > self._at_most:
                    row = row._replace(time=row.time // HOUR * HOUR, organization=OTHER)
        self[row] += count


class Usage:
    """Count decisions until they are taken; an observer of :class:`authz.Authorizer`.

    The end of a stream is not counted: its begin was. A method is counted by its name once a call of it was allowed;
    before that, as :data:`OTHER`, because anybody may call what does not exist.

    Args:
        max_methods: how many methods are counted by their names.
        max_rows: how many rows are kept in full between one :meth:`take` and the next.

    """

    def __init__(self, *, max_methods: int = MAX_METHODS, max_rows: int = MAX_ROWS) -> None:
        self._max_rows = max_rows
        self._methods: dict[str, str] = {}
        self._places = Shares(max_methods)
        self.after_fork()
        fork.register(self)

    def after_fork(self) -> None:
        """Count afresh: what the parent has counted, the parent hands over."""
        self._lock = threading.Lock()
        self._counts: dict[_Key, list[int]] = {}
        self._coarse = Rows(self._max_rows)

    def __call__(self, decision: Decision) -> None:
        """Count one decision."""
        call, evidence, refusal, _, door, event, time, _, _ = decision
        if event != "decision":
            return
        principal, method, verdict = evidence.principal, call.method, "allowed"
        if refusal is not None:
            verdict = decision.verdict
            if method not in self._methods:
                method = OTHER
        key = (time // MINUTE, principal.org_id, principal.client_id, method, verdict, door)
        # Not with "with", which takes a third longer.
        lock = self._lock
        lock.acquire()
        try:
            self._counts[key][0] += 1
        except KeyError:
            self._count_first(key)
        finally:
            lock.release()

    def take(self) -> Rows:
        """Return what was counted since the last time, of finished minutes and of the current one."""
        empty = Rows(self._max_rows)
        with self._lock:
            counts, self._counts = self._counts, {}
            rows, self._coarse = self._coarse, empty
        for key, [count] in counts.items():
            row = _row(key)
            rows[row] += count
        return rows

    def _count_first(self, key: "_Key") -> None:
        _, organization, _, method, _, _ = key
        row = _row(key)._replace(method=self._name(organization, method))
        if row.method == method and self._coarse.takes(row):
            # With the name that is kept already, so that each is kept once.
            self._counts[(*key[:3], row.method, *key[4:])] = [1]
        else:
            self._coarse.add(row, 1)

    def _name(self, organization: str, method: str) -> str:
        method = method[:MAX_METHOD]
        if method != OTHER and method not in self._methods:
            if not self._places.take(organization):
                return OTHER
            self._methods[method] = method
        return self._methods.get(method, OTHER)


# As a Row, but made in a third of the time: the minute, then the names.
_Key = tuple[float, str, str, str, str, str]


def _row(key: _Key) -> Row:
    minute, *names = key
    return Row(int(minute) * MINUTE, *names)
