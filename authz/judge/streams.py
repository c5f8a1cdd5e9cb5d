"""The streams that are open, and when each must end: no stream outlives what admitted it.

A door opens an entry for every streaming RPC, and closes it when the RPC is
over. In between the stream is told to end when its token expires, or when its
organization, application, token or key is withdrawn.
"""

import math
import threading
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, Protocol

from authz.call.call import Call, check_methods
from authz.call.principal import Principal
from authz.errors import AuthzError, ConfigError, InternalError, ResourceExhaustedError, TokenExpiredError
from authz.runtime import fork, telemetry
from authz.runtime.alarms import Alarm, Alarms
from authz.runtime.clock import SYSTEM_CLOCK, Clock, Moment
from authz.runtime.flow import Flow

StreamExpiry = Literal["token", "never"]


class Stream(Protocol):
    """One streaming RPC, as a door sees it."""

    def end(self, error: Exception) -> float | None:
        """Begin to end the RPC with ``error``, from any thread and without waiting.

        Returns:
            The seconds after which :meth:`end` is to be called once more if the RPC is still open, or ``None``.

        """


class Places(Protocol):
    """Counts the open streams of organizations together with other processes."""

    def check(self, org_id: str) -> None:
        """Check, without waiting, that an organization is not known to have as many streams open as it may.

        Raises:
            ResourceExhaustedError: it is.

        """

    def take(self, stream: Stream, org_id: str, at_most: int) -> Flow[float]:
        """Take a place for a stream, unless it has one; wait for one at the most for a moment.

        Args:
            stream: the stream.
            org_id: its organization.
            at_most: how many streams the organization may have open, in all processes.

        Returns:
            How many it may have open in this process, this one included.

        Raises:
            ResourceExhaustedError: it has as many open.
            UnavailableError: that cannot be said now.

        """

    def give_back(self, stream: Stream) -> None:
        """Give back the place of a stream, if it has one."""


class _Open(NamedTuple):
    principal: Principal
    alarm: Alarm | None
    call: Call | None


class OpenStreams:
    """Every open stream of one authorizer.

    Args:
        clock: tells the time in two ways; a stream ends when the token is over by the first of them.

    Attributes:
        places: what counts the streams of other processes as well; ``None`` where each process counts its own.

    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._alarms = Alarms("authz-streams", clock=clock)
        self.places: Places | None = None
        self.after_fork()
        fork.register(self)

    def __len__(self) -> int:
        """Return how many streams are open."""
        return len(self._open)

    def check(self, org_id: str, at_most: float) -> None:
        """Check that an organization has fewer than ``at_most`` streams open.

        Raises:
            ResourceExhaustedError: it has not.

        """
        if self._counts.get(org_id, 0) >= at_most:
            raise ResourceExhaustedError("the organization has as many streams open as it may")

    def open(
        self,
        stream: Stream,
        principal: Principal,
        until: float,
        at_most: float = math.inf,
        *,
        call: Call | None = None,
    ) -> None:
        """Take in a stream, and end it when it must end; one that was taken in before stays open.

        Args:
            stream: the stream.
            principal: who makes it.
            until: when it ends, in POSIX seconds or infinite; at once if that time is past.
            at_most: how many its organization may have open, this one included.
            call: the call that it is, for :meth:`judge`.

        Raises:
            ResourceExhaustedError: it has as many open; this one is not taken in.

        """
        left = until - self._clock.time()
        org_id = principal.org_id
        with self._lock:
            is_new = stream not in self._open
            if is_new:
                self.check(org_id, at_most)
            alarm = self._alarm(stream, self._clock.at(until)) if 0 < left < math.inf else None
            self._open[stream] = _Open(principal, alarm, call)
            self._counts[org_id] = self._counts.get(org_id, 0) + is_new
        if left <= 0:
            self.end_one(stream, TokenExpiredError())

    def close(self, stream: Stream) -> None:
        """Forget a stream, which is over."""
        if self.places is not None:
            self.places.give_back(stream)
        with self._lock:
            opened = self._open.pop(stream, None)
            if opened is not None:
                self._counts[opened.principal.org_id] -= 1
                if not self._counts[opened.principal.org_id]:
                    del self._counts[opened.principal.org_id]
        if opened is not None and opened.alarm is not None:
            self._alarms.cancel(opened.alarm)

    def end(self, error: AuthzError, concerns: Callable[[Principal], bool]) -> int:
        """End every stream for whose principal ``concerns`` returns true; return how many those are."""
        with self._lock:
            ended = [stream for stream, opened in self._open.items() if concerns(opened.principal)]
        for stream in ended:
            self.end_one(stream, error)
        return len(ended)

    def judge(self, refusal: Callable[[Call | None, Principal], AuthzError | None]) -> None:
        """End every stream for which ``refusal`` returns an error, with that."""
        with self._lock:
            streams = list(self._open.items())
        for stream, opened in streams:
            try:
                error = refusal(opened.call, opened.principal)
            except Exception as failure:  # noqa: BLE001 - the others must be judged, and this one must not go on without a verdict
                telemetry.unforeseen("stream", failure)
                error = InternalError()
            if error is not None:
                self.end_one(stream, error)

    def end_one(self, stream: Stream, error: Exception) -> None:
        """End a stream with ``error``, and again later if it stays open."""
        try:
            seconds = stream.end(error)
        except Exception as failure:  # noqa: BLE001 - the others must still end
            telemetry.unforeseen("stream", failure)
            return
        if seconds is None:
            return
        with self._lock:
            opened = self._open.get(stream)
            if opened is not None:
                if opened.alarm is not None:
                    self._alarms.cancel(opened.alarm)
                again = Moment(monotonic=self._clock.monotonic() + seconds)
                self._open[stream] = opened._replace(alarm=self._alarm(stream, again))

    def expire(self) -> None:
        """End every stream whose time is over; a thread does so when it is."""
        self._alarms.ring()

    def after_fork(self) -> None:
        """Forget the streams, which are the parent's."""
        self._lock = threading.Lock()
        self._open: dict[Stream, _Open] = {}
        self._counts: dict[str, int] = {}

    def _alarm(self, stream: Stream, at: Moment) -> Alarm:
        return self._alarms.set(at, lambda: self.end_one(stream, TokenExpiredError()))


class StreamRules:
    """How long streams may go on.

    Args:
        expiry: ``token``: until the token expires; ``never``: until something is withdrawn; or one of them by
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
