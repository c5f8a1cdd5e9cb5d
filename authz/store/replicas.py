"""The replicas that share a store: each says every few seconds that it is there, and what is in force in it."""

import contextlib
import json
import math
import os
import secrets
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from authz.runtime import telemetry
from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.runtime.threads import Repeating
from authz.store.connection import Script, Store, StoreError

SEEN_SECONDS = 15.0
"""A replica that has said nothing for so long is not there."""

MAX_REPLICAS, MAX_SAID = 5000, 4096
"""How many replicas are told, and how many bytes one may say: a server could say more, in the name of thousands."""

_BEAT_SECONDS = 5.0
# The largest number that is believed.
_MOST = 1e12
# However many orders come.
_LEAST_SECONDS = 0.2

_NOW = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
"""
_BEAT = Script(
    _NOW
    + """
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[1], now, ARGV[1])
local gone = redis.call('ZRANGE', KEYS[1], '-inf', now - 4 * ARGV[3], 'BYSCORE', 'LIMIT', 0, 100)
if #gone > 0 then
  redis.call('ZREM', KEYS[1], unpack(gone))
  redis.call('HDEL', KEYS[2], unpack(gone))
end
return redis.call('ZCOUNT', KEYS[1], now - ARGV[3], '+inf')
"""
)
_ALL = Script(
    _NOW
    + """
local said = {}
for _, name in ipairs(redis.call('ZRANGE', KEYS[1], now - ARGV[1], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[2])) do
  local text = redis.call('HGET', KEYS[2], name)
  if text and #text <= tonumber(ARGV[3]) then said[#said + 1] = text end
end
return said
"""
)
_LEAVE = Script("redis.call('ZREM', KEYS[1], ARGV[1]); return redis.call('HDEL', KEYS[2], ARGV[1])")


class Replica(NamedTuple):
    """What a replica says of itself.

    Args:
        id: unlike that of any other; it changes when the process starts anew.
        host: the name of its machine or pod.
        version: of this project.
        region: where it is, by its settings.
        applied: the id of the last entry of the log of orders that is in force there; empty before all are.
        policy: which policy is in force, in a few characters; empty for none.
        keys_age: seconds since the oldest of its issuers' keys were fetched; ``None`` if they never are.
        started: when, in POSIX seconds.
        workers: how many processes obey its orders.
        source_age: seconds since it has heard a source of orders such as WorkOS; ``None`` if it follows none.
        source_error: why it does not hear that source; empty if it does, or leaves that to another replica.

    """

    id: str
    host: str = ""
    version: str = ""
    region: str = ""
    applied: str = ""
    policy: str = ""
    keys_age: float | None = None
    started: float = 0.0
    workers: int = 1
    source_age: float | None = None
    source_error: str = ""


class Replicas:
    """The replicas that share a store.

    Args:
        store: the store.

    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys = _keys_of(store)

    def all(self) -> list[Replica]:
        """Return those that were seen in the last 15 s.

        Raises:
            StoreError: the store did not answer.

        """
        said = self._store.call(_ALL, self._keys, [SEEN_SECONDS, MAX_REPLICAS, MAX_SAID])
        return sorted((found for found in map(_parsed, said) if found is not None), key=_name)


class Heartbeat:
    """A thread that says for a replica that it is there: every 5 s, and at once after :meth:`wake`.

    Args:
        store: where it says so.
        about: returns what the replica says of itself, by the names of :class:`Replica`, without its id.
        clock: tells the time.

    Attributes:
        count: how many replicas there were when it was last heard.

    """

    def __init__(self, store: Store, about: Callable[[], Mapping[str, Any]], *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._store, self._about, self._clock = store, about, clock
        self._keys = _keys_of(store)
        self._name, self._started = secrets.token_hex(6), clock.time()
        self.count = 1
        self._next_at, self._told = -math.inf, ""
        self._thread = Repeating("authz-replica", self.work)
        self.start, self.wake = self._thread.start, self._thread.wake

    @property
    def id(self) -> str:
        """That of the replica: a forked child is another one."""
        return f"{self._name}-{os.getpid()}"

    def stop(self) -> None:
        """Stop saying so, and have the replica no longer counted."""
        self._thread.stop()
        with contextlib.suppress(StoreError):
            self._store.call(_LEAVE, self._keys, [self.id])

    def work(self) -> float:
        """Say it once, and return after how many seconds to say it again."""
        now = self._clock.monotonic()
        if now < self._next_at:
            return self._next_at - now
        self._next_at = now + _LEAST_SECONDS
        told = {"id": self.id, "started": self._started, **self._about()}
        try:
            self.count = self._store.call(_BEAT, self._keys, [self.id, json.dumps(told), SEEN_SECONDS])
            self._told = ""
        except StoreError as error:
            # That the store is away, the follower logs; a user who may not do this is an operator's mistake.
            if error.reason == "denied" and not self._told:
                self._told = error.reason
                telemetry.event(telemetry.WARNING, "replica_not_listed", error=str(error))
        return _BEAT_SECONDS


def _keys_of(store: Store) -> list[str]:
    return [store.key("{replicas}:seen"), store.key("{replicas}:said")]


def _name(replica: Replica) -> str:
    return replica.id


def _parsed(said: bytes) -> Replica | None:
    """Return what a replica of any version has said; ``None`` if it is nothing that can be read."""
    try:
        told = json.loads(said)
        known = {name: told[name] for name in Replica._fields if name in told}
        replica = Replica(**known)
    except (ValueError, TypeError, RecursionError):
        return None
    names = (replica.id, replica.host, replica.version, replica.region)
    texts = (*names, replica.applied, replica.policy, replica.source_error)
    numbers = (replica.keys_age or 0.0, replica.started, replica.workers, replica.source_age or 0.0)
    is_sound = all(isinstance(text, str) for text in texts) and all(map(is_number, numbers))
    return replica if is_sound else None


def is_number(value: object) -> bool:
    """Say whether what a replica has said is a number that JSON and a page can say as well, and not below 0."""
    return isinstance(value, int | float) and 0 <= value < _MOST
