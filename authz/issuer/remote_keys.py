"""An issuer's keys: which one verifies a token, fetched and kept so that no caller stalls others or floods the issuer.

The rules of the key set's life, in order of weight:

1. A known, unexpired key is returned at once; it never waits for a fetch.
2. One fetch at a time, which all callers that need it share (:mod:`authz.runtime.asking`).
3. A fetch that failed, or brought nothing usable, never replaces keys that work.
4. Attempts to fetch are bounded, whatever their outcome: by a pause after each failure, and for unknown kids by a
   window as well.
"""

import math
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from functools import partial
from typing import NamedTuple

from authz.errors import AuthzError, KeyNotFoundError, KeySetUnavailableError, KeyUndecidedError, OverloadedError
from authz.issuer.endpoint import Endpoint
from authz.issuer.keys import KeySetHealth, log_dropped
from authz.runtime import fork, telemetry
from authz.runtime.asking import Asking, NoAnswerError, Question
from authz.runtime.backoff import JITTER, uniform
from authz.runtime.clock import SYSTEM_CLOCK, Clock, Moment
from authz.runtime.flow import Flow, Wait
from authz.runtime.network import causes
from authz.runtime.network.transport import HttpResponse
from authz.token.encoding import EncodingError, json_object
from authz.token.jwk import KeyRing, VerificationKey, parse_jwks

FRESH = 300.0
"""Seconds after which a key set is due for another fetch (Nimbus and PyJWT use the same)."""

STALE = 3600.0
"""Seconds after the last success until keys are no longer believed, unless the issuer's max-age is longer: how
long a withdrawn key can live while the issuer cannot be reached."""

_REFRESH_AT = 0.8
_LEAST_FRESH, _MOST_FRESH = 60.0, 86_400.0
_MAX_AGE_DIGITS = 9
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age=\"?([0-9]{1,9})\b", re.ASCII | re.IGNORECASE)
_FORCED_FETCHES, _FORCED_WINDOW = 2, 30.0
_PATIENCE = 2.0
# Anybody can invent kids, so what waits for them has room of its own, and takes no other call's. As much as a burst of
# calls takes right after the issuer has begun to use a new key.
_MAX_WAITING = 256
# A set of 64 keys with their certificate chains and key_ops stays below.
_MAX_CONTAINERS = 1024
_OK = 200


class RemoteKeySet:
    """The key set at an issuer's ``jwks_uri``, kept fresh (RFC 7517 section 5).

    Args:
        endpoint: where the JWK Set is.
        clock: where the time comes from; keys age by whichever of its two clocks runs further.
        max_blocked_threads: how many threads may wait for an unknown ``kid``; tasks are not counted.
        seed: keys to begin with, while the first fetch is under way or fails; believed as if just fetched.
        jitter: returns a number between -1 and 1, so that many servers do not refresh at once.

    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        clock: Clock = SYSTEM_CLOCK,
        max_blocked_threads: int = 4,
        seed: KeyRing | None = None,
        jitter: Callable[[], float] = uniform,
    ) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._held = _Held(clock, jitter, seed)
        self._watchers: list[Callable[[frozenset[str]], None]] = []
        self._asking = Asking[None, _Published]("key set", clock, jitter)
        # How many fetches have brought keys, and the number of the last of them.
        self._fetches = self._answered = 0
        self._forced: deque[float] = deque(maxlen=_FORCED_FETCHES)
        self._places = _Places(max_blocked_threads)

    def find(self, kid: str | None, algorithm: str | None = None) -> Flow[VerificationKey]:
        """See :class:`authz.issuer.keys.KeySet`; waits up to 2 s, for a first key set or for an unknown ``kid``.

        Raises:
            KeyUndecidedError: the keys have been fetched for unknown ``kid``s as often as may be, and this is one.
            OverloadedError: as many calls wait for unknown ``kid``s as may.

        """
        came = self._asking.begun
        # Twice: a fetch that this call only joined began before it, perhaps before the key was published.
        for _ in range(2):
            key, fetch, is_ours = self._look_up(kid, algorithm, came)
            if key is not None:
                return key
            if not (yield from self._places.wait(fetch, is_bounded=self._held.current() is not _NO_KEYS)):
                raise _unavailable(self._endpoint.url, self._asking.error, max(1.0, self._asking.pause))
            if is_ours:
                break
        ring = self._held.current()
        key = ring.get(kid, algorithm)
        if key is None:
            raise ring.missing(kid)
        return key

    def known(self, kid: str | None, algorithm: str | None = None) -> VerificationKey | None:
        """See :class:`authz.issuer.keys.KeySet`; like any use of a key it refreshes ahead of need."""
        is_due = self._clock.has_reached(self._held.refresh_at)
        # Not due, so not stale either. No lock: if a set arrives in between, what is missing here is found by the flow.
        key = (self._held.current() if is_due else self._held.ring).get(kid, algorithm)
        if is_due and key is not None:
            self._refresh_ahead()
        return key

    def load(self) -> Flow[None]:
        """See :class:`authz.issuer.keys.KeySet`; waits up to 2 s, and like any use of a key refreshes ahead of need."""
        with self._asking.lock:
            is_stale = self._clock.has_reached(self._held.stale_at)
            fetch, is_ours = self._join_or_begin() if is_stale else (_NOTHING, False)
        if not is_stale:
            self._refresh_ahead()
            return
        if is_ours:
            self._launch(fetch)
        if not (yield from self._places.wait(fetch, is_bounded=False)):
            raise _unavailable(self._endpoint.url, self._asking.error, max(1.0, self._asking.pause))

    def holds(self, key: VerificationKey) -> bool:
        """See :class:`authz.issuer.keys.KeySet`; like any use of a key it refreshes ahead of need."""
        if self._clock.has_reached(self._held.refresh_at):
            self._refresh_ahead()
            return self._held.current().holds(key)
        # Not due, so not stale either.
        return self._held.ring.holds(key)

    def knows(self, key_id: str, thumbprint: str = "") -> bool:
        """See :class:`authz.issuer.keys.KeySet`."""
        return self._held.ring.knows(key_id or None, thumbprint)

    def watch(self, withdrawn: Callable[[frozenset[str]], None]) -> None:
        """See :class:`authz.issuer.keys.KeySet`; called on the thread that fetches."""
        self._watchers.append(withdrawn)

    def age(self) -> float | None:
        """See :class:`authz.issuer.keys.KeySet`."""
        fetched_at = self._held.fetched_at
        return None if fetched_at is None else self._clock.since(fetched_at)

    def health(self) -> KeySetHealth:
        """See :class:`authz.issuer.keys.KeySet`."""
        with self._asking.lock:
            ring = self._held.current()
            return KeySetHealth(
                is_ready=bool(ring.keys),
                keys=len(ring),
                age=self.age(),
                lasts=max(0.0, self._clock.until(self._held.stale_at)),
                error=self._asking.error,
                retry_in=max(0.0, self._asking.pause),
                fetches=self._fetches,
                failures=self._asking.causes.total(),
                kids=tuple(ring.keys),
                dropped=ring.dropped,
                causes=dict(self._asking.causes),
            )

    def close(self) -> None:
        """Stop fetching."""
        self._endpoint.close()

    def _look_up(
        self, kid: str | None, algorithm: str | None, came: int
    ) -> "tuple[VerificationKey | None, _Fetch, bool]":
        # One lock around looking and deciding: a set that arrives in between must not look like a miss.
        with self._asking.lock:
            key = self._held.current().get(kid, algorithm)
            if key is None and self._answered > came:
                # The issuer has been asked since the call came, and has answered.
                raise KeyNotFoundError
            fetch, is_ours = (_NOTHING, False) if key else self._join_or_begin(kid)
        if key is not None:
            self._refresh_ahead()
        elif is_ours:
            self._launch(fetch)
        return key, fetch, is_ours

    def _refresh_ahead(self) -> None:
        with self._asking.lock:
            is_due = self._clock.has_reached(self._held.refresh_at)
            if not is_due or self._asking.questions or not self._asking.may_ask:
                return
            fetch = self._asking.begin(Question(None))
        self._launch(fetch)

    def _join_or_begin(self, kid: str | None = None) -> "tuple[_Fetch, bool]":
        under_way = self._asking.questions.get(None)
        if under_way is not None:
            return under_way, False
        if not self._asking.may_ask:
            raise _unavailable(self._endpoint.url, self._asking.error, self._asking.pause)
        if not self._clock.has_reached(self._held.stale_at):
            # There are keys, only not this one, and any caller can invent a kid: so attempts are counted for all.
            now = self._clock.monotonic()
            if len(self._forced) == _FORCED_FETCHES and now - self._forced[0] < _FORCED_WINDOW:
                raise self._undecided(kid, self._forced[0] + _FORCED_WINDOW - now)
            self._forced.append(now)
        return self._asking.begin(Question(None)), True

    def _undecided(self, kid: str | None, retry_after: float) -> AuthzError:
        if self._asking.backoff.is_failing:
            return _unavailable(self._endpoint.url, self._asking.error, retry_after)
        # For any other kid: not that there is no such key, for the issuer may have begun to use it since.
        return KeyNotFoundError() if kid in self._held.gone else KeyUndecidedError(retry_after=retry_after)

    def _launch(self, fetch: "_Fetch") -> None:
        self._asking.expect(self._endpoint.fetch("GET"), _read, partial(self._finish, fetch))

    def _finish(self, fetch: "_Fetch", published: "_Published | None", failure: NoAnswerError | None) -> None:
        withdrawn = frozenset[str]()
        with self._asking.lock:
            self._asking.end(fetch, failure)
            if published is not None:
                self._fetches += 1
                self._answered = fetch.number
                withdrawn = self._held.replace(*published)
        if failure is not None:
            telemetry.event(telemetry.WARNING, "jwks_fetch_failed", url=self._endpoint.url, error=str(failure))
        if published is not None:
            log_dropped(published.ring, self._endpoint.url)
        fetch.answer.set_result(published)
        if withdrawn:
            for watcher in self._watchers:
                watcher(withdrawn)


class _Held:
    """The keys that were fetched last, and how long they serve.

    Args:
        clock: they age by whichever of its two clocks runs further.
        jitter: returns a number between -1 and 1.
        seed: keys to begin with; believed as if just fetched.

    """

    def __init__(self, clock: Clock, jitter: Callable[[], float], seed: KeyRing | None) -> None:
        self._clock, self._jitter = clock, jitter
        self.ring = seed or _NO_KEYS
        # The keys that the issuer took back last: unlike an unknown kid, none of them can be one not published yet.
        self.gone: frozenset[str | None] = frozenset()
        self.fetched_at: Moment | None = None
        self.refresh_at = _LONG_AGO
        self.stale_at = clock.now().after(STALE) if seed else _LONG_AGO

    def current(self) -> KeyRing:
        """Return the keys, unless they are too old to be believed."""
        return _NO_KEYS if self._clock.has_reached(self.stale_at) else self.ring

    def replace(self, ring: KeyRing, fresh: float) -> frozenset[str]:
        """Hold other keys, fresh for so many seconds, and return the ids of those that were withdrawn or changed."""
        # A key that stays keeps its object, so that holds() compares no keys
        # and a token verified by a key that left, or changed, is known at once.
        old, now = self.ring, self._clock.now()
        self.gone = frozenset(old.keys) - frozenset(ring.keys) or self.gone
        self.ring = ring.keeping(old)
        self.fetched_at = now
        self.refresh_at = now.after(fresh * (_REFRESH_AT + JITTER * self._jitter()))
        self.stale_at = now.after(max(fresh, STALE))
        return frozenset(kid or "" for kid, keys in old.keys.items() if not all(map(self.ring.covers, keys)))


class _Places:
    """Places for the calls that wait for an unknown ``kid``: callers that invent some must not occupy a server.

    Args:
        max_blocked_threads: how many threads may wait; tasks are not counted.

    """

    def __init__(self, max_blocked_threads: int) -> None:
        self._max_blocked_threads = max_blocked_threads
        self.after_fork()
        fork.register(self)

    def after_fork(self) -> None:
        """Start with every place free: the callers that wait are the parent's."""
        self._blocked_threads = threading.BoundedSemaphore(self._max_blocked_threads)
        self._waiting = threading.BoundedSemaphore(_MAX_WAITING)

    def wait(self, fetch: "_Fetch", *, is_bounded: bool) -> Flow[bool]:
        """Wait for a fetch, and say whether it has brought keys.

        Args:
            fetch: the fetch.
            is_bounded: whether it takes a place. Without any key every call waits: there is nothing else to do.

        Raises:
            OverloadedError: no place is free.

        """
        if is_bounded and not self._waiting.acquire(blocking=False):
            raise OverloadedError
        try:
            return (yield Wait(fetch.answer, _PATIENCE, self._blocked_threads if is_bounded else None)) is not None
        except (TimeoutError, CancelledError):
            return False
        finally:
            if is_bounded:
                self._waiting.release()


class _Published(NamedTuple):
    """A key set, and the seconds for which the issuer wants it to be used."""

    ring: KeyRing
    fresh: float


_Fetch = Question[None, _Published]

_NO_KEYS = KeyRing(keys={})
_LONG_AGO = Moment(-math.inf, -math.inf)
_NOTHING: _Fetch = Question(None)


def _unavailable(url: str, error: str, retry_after: float) -> KeySetUnavailableError:
    cause = error or "timeout"
    return KeySetUnavailableError(f"no keys from {url}: {cause}", retry_after=retry_after, cause=cause)


def _read(response: HttpResponse) -> _Published:
    if response.status != _OK:
        raise NoAnswerError(causes.status(response.status))
    try:
        ring = parse_jwks(json_object(response.body, max_containers=_MAX_CONTAINERS))
    except EncodingError:
        raise NoAnswerError("not JSON") from None
    except ValueError as error:
        raise NoAnswerError(f"not a key set ({error})") from None
    if not ring.keys:
        raise NoAnswerError(f"no usable key ({ring.why_dropped()})")
    return _Published(ring, _freshness(response.headers))


def _freshness(headers: Mapping[str, str]) -> float:
    # RFC 9111 sections 4.2.1 and 5.1: how long the issuer wants the set to be used, less the time it has
    # already spent in caches. Bounded, so that no header makes us hammer the issuer, or miss a rotation for days.
    max_age = _MAX_AGE.search(headers.get("cache-control", ""))
    if max_age is None:
        return FRESH
    age = headers.get("age", "")
    spent = int(age) if age.isascii() and age.isdecimal() and len(age) <= _MAX_AGE_DIGITS else 0
    return min(max(float(max_age[1]) - spent, _LEAST_FRESH), _MOST_FRESH)
