"""The streams that are open, and when each must end: no stream outlives what admitted it.

A door opens an entry for every streaming RPC and closes it when the RPC is
over. In between the stream is told to end when its token expires, or when its
organization, application, token or key is withdrawn. One thread keeps the time
for all of them; it sleeps until the earliest stream is due, and costs nothing per stream.
"""

import heapq
import math
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from authz import fork, telemetry
from authz.call import Principal, check_methods
from authz.clock import SYSTEM_CLOCK, Clock
from authz.errors import AuthzError, ConfigError, TokenExpiredError

StreamExpiry = Literal["token", "never"]

# How long the thread stays without work: long enough not to start one for every stream.
_LINGER = 10.0
# Below this many, entries of streams that are over are not worth sweeping.
_FEW = 64


class Stream(Protocol):
    """One streaming RPC, as a door sees it."""

    def end(self, error: AuthzError) -> float | None:
        """Begin to end the RPC with ``error``, from any thread and without waiting.

        Returns:
            The seconds after which to be called once more if the RPC is still open, or ``None``.

        """


@dataclass(order=True, slots=True)
class _Due:
    at: float
    stream: Stream | None = field(compare=False)


class OpenStreams:
    """Every open stream of one authorizer.

    Args:
        clock: ``time`` for when tokens expire, ``monotonic`` for waiting until then.

    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self.after_fork()
        fork.register(self)

    def __len__(self) -> int:
        """Return how many streams are open."""
        return len(self._principals)

    def open(self, stream: Stream, principal: Principal, until: float) -> None:
        """Take in a stream, and end it at ``until``, in POSIX seconds or infinite."""
        with self._changed:
            self._principals[stream] = principal
            if until < math.inf:
                self._schedule(stream, self._clock.monotonic() + until - self._clock.time())

    def close(self, stream: Stream) -> None:
        """Forget a stream, which is over."""
        with self._changed:
            self._principals.pop(stream, None)
            self._cancel(stream)

    def end(self, error: AuthzError, concerns: Callable[[Principal], bool]) -> int:
        """End every stream whose principal ``concerns`` says yes to; return how many those are."""
        with self._changed:
            ended = [stream for stream, principal in self._principals.items() if concerns(principal)]
        self._end(ended, error)
        return len(ended)

    def expire(self) -> None:
        """End every stream that is due by now."""
        with self._changed:
            now = self._clock.monotonic()
            due = []
            while self._heap and self._heap[0].at <= now:
                stream = heapq.heappop(self._heap).stream
                if stream is None:
                    self._cancelled -= 1
                else:
                    del self._due[stream]
                    due.append(stream)
        self._end(due, TokenExpiredError())

    def after_fork(self) -> None:
        """Forget the streams and the thread, which are the parent's."""
        self._changed = threading.Condition(threading.Lock())
        self._principals: dict[Stream, Principal] = {}
        self._heap: list[_Due] = []
        self._due: dict[Stream, _Due] = {}
        self._cancelled = 0
        self._thread: threading.Thread | None = None
        self._wakes_at = math.inf

    def _end(self, streams: Collection[Stream], error: AuthzError) -> None:
        for stream in streams:
            try:
                seconds = stream.end(error)
            except Exception as failure:  # noqa: BLE001 - the others must end all the same
                telemetry.unforeseen("stream", failure)
                continue
            if seconds is not None:
                with self._changed:
                    if stream in self._principals:
                        self._schedule(stream, self._clock.monotonic() + seconds)

    def _schedule(self, stream: Stream, at: float) -> None:
        self._cancel(stream)
        due = self._due[stream] = _Due(at, stream)
        heapq.heappush(self._heap, due)
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep_time, name="authz-streams", daemon=True)
            self._thread.start()
        elif at < self._wakes_at:
            self._changed.notify()

    def _cancel(self, stream: Stream) -> None:
        due = self._due.pop(stream, None)
        if due is None:
            return
        # Left in the heap, for taking it out would mean a search; swept when it is mostly such.
        due.stream = None
        self._cancelled += 1
        if self._cancelled > max(_FEW, len(self._heap) // 2):
            self._heap = [due for due in self._heap if due.stream is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def _keep_time(self) -> None:
        is_idle = False
        while True:
            with self._changed:
                now = self._clock.monotonic()
                if self._heap:
                    self._wakes_at = self._heap[0].at
                elif is_idle:
                    self._thread = None
                    return
                else:
                    self._wakes_at = now + _LINGER
                is_idle = not self._heap
                if self._wakes_at > now:
                    self._changed.wait(min(self._wakes_at - now, threading.TIMEOUT_MAX))
            self.expire()


class StreamRules:
    """How long streams may go on.

    Args:
        expiry: ``token``: until the token expires; ``never``: for as long as nothing is withdrawn; or one of them by
            full method name, where ``*`` names all others (``token`` if it is missing).
        grace: seconds that a stream may go on after its token has expired.

    Raises:
        ConfigError: an argument that cannot work; the message names it.

    """

    def __init__(self, expiry: StreamExpiry | Mapping[str, StreamExpiry] = "token", grace: float = 0.0) -> None:
        by_method = dict(expiry) if isinstance(expiry, Mapping) else {"*": expiry}
        for value in by_method.values():
            if value not in ("token", "never"):
                raise ConfigError(f"stream_expiry: {value!a} must be token or never")
        if not 0 <= grace < math.inf:
            raise ConfigError(f"grace: {grace!r} is not a number of seconds from 0")
        self._grace = float(grace)
        self._default = by_method.pop("*", "token")
        check_methods(by_method, "stream_expiry")
        self._by_method = by_method

    def until(self, method: str, ends_at: float) -> float:
        """Return when a stream must end, in POSIX seconds, if its token ends at ``ends_at``."""
        if self._by_method.get(method, self._default) == "never":
            return math.inf
        return ends_at + self._grace
