"""Decisions of all replicas for admin pages: while some page shows them, each replica tells a few of each second.

A page says so by a key that ends by itself; where there is none, replicas tell nothing. What they tell is in a stream,
which is short and ends by itself too. Whoever can write into the store can make up any of it, so nothing in it may harm
the process that shows it: an entry that is too long stays in the store, and one that is not understood is left out.
"""

import json
import math
import re
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, get_args

from authz.decisions.decision import Event, Source, Verdict
from authz.decisions.sample import SAMPLED, SHOWN, Sampled
from authz.judge.orders.order import Source as OrderSource
from authz.runtime import fork, telemetry
from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.runtime.text.printable import MAX_CHARACTERS
from authz.runtime.threads import Repeating
from authz.store.connection import Script, Store, StoreError
from authz.store.replicas import is_number

KEPT = 1000
"""How many decisions of other replicas a process keeps for its page."""

MAX_ENTRY = 32 * 1024
"""How many bytes the decisions may have that a replica tells at a time."""

# The same of all that is read at a time, and how many entries those are at the most.
_MAX_READ, _MAX_ENTRIES = 512 * 1024, 200
# How many entries the stream keeps, about, and after how many seconds without one it ends.
_MAX_LOG, _LOG_SECONDS = 500, 60
# How long a page counts as open after it has asked, and how long replicas believe that.
_OPEN_SECONDS, _WATCHED_SECONDS = 5.0, 10
# Seconds between two looks: at what was decided, at whether some page is open, and after a failure.
_PAUSE, _IDLE_PAUSE, _LONG_PAUSE = 1.0, 2.0, 10.0

_WORDS = {
    "event": get_args(Event),
    "verdict": get_args(Verdict),
    "source": get_args(Source),
    "order_source": ("", *get_args(OrderSource)),
}
_REPLICA = re.compile(r"[0-9a-f]{12}-[0-9]{1,10}")

# ARGV: about how many entries are kept, for how many seconds, the new one.
_ADD = Script("""\
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'd', ARGV[3])
return redis.call('EXPIRE', KEYS[1], ARGV[2])
""")
# ARGV: after which entry, how many at the most, bytes of one, bytes of all. Returns the id of the newest entry, and the
# newest of those after the given one.
_READ = Script("""\
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local texts, left = {}, tonumber(ARGV[4])
for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', '(' .. ARGV[1], 'COUNT', ARGV[2])) do
  local text = entry[2][2]
  left = left - #text
  if left < 0 then break end
  texts[#texts + 1] = #text <= tonumber(ARGV[3]) and text or ''
end
return {newest and newest[1] or '0-0', texts}
""")


class Others(NamedTuple):
    """What other replicas have decided.

    Args:
        decisions: plain data, in the order in which they came; each with its replica and its time there.
        cursor: which one was the last; see :class:`authz.server.admin.news.News`.

    """

    decisions: list[dict[str, Any]]
    cursor: str


class SharedDecisions:
    """A thread that tells pages what is decided here, and a page here what is decided elsewhere.

    Args:
        store: by which replicas tell one another.
        look: returns what was decided here since it was called last.
        replica: returns the id of this one.
        clock: only its ``monotonic`` is read.

    Attributes:
        counts: how many decisions were ``sent`` while a page was open, how many were not (``dropped``), and how many
            entries of the stream were not understood (``ignored``).
        left_out: how many decisions other replicas have not told, by what they say themselves.

    """

    def __init__(
        self,
        store: Store,
        look: Callable[[], Sampled],
        replica: Callable[[], str],
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._store, self._look, self._replica, self._monotonic = store, look, replica, clock.monotonic
        self._watched, self._log = store.key("d:watched"), store.key("d:log")
        self.counts: dict[Literal["sent", "dropped", "ignored"], int] = {"sent": 0, "dropped": 0, "ignored": 0}
        self.left_out, self._told = 0, ""
        self._thread = Repeating("authz-shared-decisions", self.work)
        self.start, self.stop = self._thread.start, self._thread.stop
        self.after_fork()
        fork.register(self)

    def after_fork(self) -> None:
        """Forget what the parent keeps for its page."""
        self._lock = threading.Lock()
        self._origin, self._number, self._after = secrets.token_hex(4), 0, "0-0"
        self._others: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._open_until = -math.inf

    def others(self) -> Others:
        """Return the newest decisions of other replicas, for a page that is open; does not wait for the store."""
        now = self._monotonic()
        was_open, self._open_until = now < self._open_until, now + _OPEN_SECONDS
        if not was_open:
            self._thread.wake()
        with self._lock:
            return Others(list(self._others), f"{self._origin}-{self._number}")

    def work(self) -> float:
        """Tell and read what there is; return after how many seconds there may be more."""
        is_open = self._monotonic() < self._open_until
        try:
            with self._store.asking() as client:
                if is_open:
                    client.set(self._watched, 1, ex=_WATCHED_SECONDS)
                elif not client.exists(self._watched):
                    return _IDLE_PAUSE
            self._tell()
            if is_open:
                self._read()
        except StoreError as error:
            self._failed(error)
            return _LONG_PAUSE
        self._told = ""
        return _PAUSE

    def _tell(self) -> None:
        decisions, left_out = self._look()
        told, size = [], 200
        for decision in decisions:
            text = json.dumps(decision, separators=(",", ":"))
            size += len(text) + 1
            if size <= MAX_ENTRY:
                told.append(text)
        left_out += len(decisions) - len(told)
        self.counts["dropped"] += left_out
        if told or left_out:
            entry = f'{{"replica":"{self._replica()}","left_out":{left_out},"decisions":[{",".join(told)}]}}'
            # Counted as dropped until the store has them.
            self.counts["dropped"] += len(told)
            self._store.call(_ADD, [self._log], [_MAX_LOG, _LOG_SECONDS, entry])
            self.counts["dropped"] -= len(told)
            self.counts["sent"] += len(told)

    def _read(self) -> None:
        asked = [self._after, _MAX_ENTRIES, MAX_ENTRY, _MAX_READ]
        newest, entries = self._store.call(_READ, [self._log], asked)
        # Even if that is an earlier one, in a store that has lost its newest.
        self._after = newest.decode()
        own = self._replica()
        for entry in reversed(entries):
            try:
                replica, left_out, decisions = _understood(entry)
            except (ValueError, TypeError, KeyError, RecursionError):
                self.counts["ignored"] += 1
                continue
            if replica != own:
                self.left_out += left_out
                self._keep(replica, decisions)

    def _keep(self, replica: str, decisions: Iterable[dict[str, Any]]) -> None:
        with self._lock:
            for decision in decisions:
                self._number += 1
                self._others.append({**decision, "id": f"{self._origin}-{self._number}", "replica": replica})

    def _failed(self, error: StoreError) -> None:
        # That the store is away, the follower logs; what this user may not do is an operator's mistake.
        if not error.is_away and error.reason != self._told:
            telemetry.event(telemetry.WARNING, "decisions_not_shared", error=str(error))
            self._told = error.reason


def _understood(entry: bytes) -> tuple[str, int, list[dict[str, Any]]]:
    """Return the replica, how many decisions it has left out, and the others.

    Raises:
        ValueError, TypeError, KeyError, RecursionError: the entry is not what a replica tells.

    """
    told = json.loads(entry)
    replica, left_out, decisions = told["replica"], told["left_out"], told["decisions"]
    if not _REPLICA.fullmatch(replica) or not is_number(left_out) or not isinstance(decisions, list):
        raise ValueError
    return replica, int(left_out), [_decision(each) for each in decisions[: 2 * SAMPLED]]


def _decision(told: dict[str, Any]) -> dict[str, Any]:
    # An older version says less.
    told = {"verb": "POST", "client_name": "", "order_source": "", **told}
    decision = {name: told[name] for name in ("time", *SHOWN)}
    for name, value in decision.items():
        is_sound = (
            is_number(value)
            if name in ("time", "milliseconds")
            else isinstance(value, str) and len(value) <= MAX_CHARACTERS and value in _WORDS.get(name, (value,))
        )
        if not is_sound:
            raise ValueError
    return decision
