"""The streams that are open, and when each must end: no stream outlives what admitted it.

A door opens an entry for every streaming RPC, and closes it when the RPC is
over. In between the stream is told to end when its token expires, or when its
organization, application, token or key is withdrawn. Thousands that must end
are told one after the other, so a door looks at a stream before each message.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any, Literal, Protocol

from authz.call.call import Call, check_methods
from authz.call.principal import Principal
from authz.errors import AuthzError, ConfigError, InternalError, ResourceExhaustedError, TokenExpiredError
from authz.runtime import fork, telemetry
from authz.runtime.alarms import Alarm, Alarms
from authz.runtime.clock import SYSTEM_CLOCK, Clock, Moment
from authz.runtime.flow import Flow
from authz.runtime.threads import Pace

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


Question = Callable[[Call | None, Principal], AuthzError | None]
"""Returns why what was admitted must end; questions that are equal are the same."""

FEW = 32
"""So many streams are asked about at once, which takes less than a millisecond, and needs no thread."""


class _Streams(Sized, Iterable[Any], Protocol):
    """Those that are open."""


class Reviews:
    """Put questions about all open streams, which come up when something is withdrawn.

    Who withdraws something is not held until thousands of streams have been told: a thread asks about a few of them at
    a time. Until it is through, a stream is asked about before its next message as well.

    Args:
        streams: those that are open.
        put: puts some questions about one of them, and ends it with the first error that they return.
        clock: its ``monotonic`` is read.

    Attributes:
        questions: those that have not been put about all streams yet.

    """

    def __init__(
        self,
        streams: _Streams,
        put: Callable[[Any, Iterable[Question]], None],
        *,
        clock: Clock,
    ) -> None:
        self._streams, self._put, self._clock = streams, put, clock
        self._alarms = Alarms("authz-reviews", clock=clock)
        self.after_fork()
        fork.register(self)

    def after_fork(self) -> None:
        """Forget the questions: they are about the parent's streams."""
        self._lock = threading.Lock()
        # Each with the number of times that it has come up.
        self._times: dict[Question, int] = {}
        self._count = 0
        self.questions: tuple[Question, ...] = ()

    def ask(self, question: Question) -> None:
        """Put ``question`` about every stream: of few at once, otherwise soon, on a thread, and before each message."""
        with self._lock:
            self._count += 1
            self._times[question] = self._count
            self.questions = tuple(self._times)
        if len(self._streams) <= FEW:
            self.settle()
        else:
            self._begin()

    def settle(self) -> None:
        """Put every question about every stream, on this thread."""
        with self._lock:
            asked = dict(self._times)
        if not asked:
            return
        pace, questions = Pace(), tuple(asked)
        for stream in self._streams:
            self._put(stream, questions)
            pace.step()
        with self._lock:
            # One that has come up again meanwhile is put once more.
            self._times = {one: times for one, times in self._times.items() if asked.get(one) != times}
            self.questions = tuple(self._times)

    def _begin(self) -> None:
        self._alarms.set(Moment(monotonic=self._clock.monotonic()), self.settle)


class _Open:
    """An entry; called when its time is over."""

    __slots__ = ("_streams", "alarm", "call", "is_told", "principal", "stream")

    def __init__(self, streams: "OpenStreams", stream: Stream, principal: Principal, call: Call | None) -> None:
        self._streams, self.stream, self.principal, self.call = streams, stream, principal, call
        self.alarm: Alarm | None = None
        self.is_told = False

    def __call__(self) -> None:
        self._streams.end_one(self.stream, TokenExpiredError())


class OpenStreams:
    """Every open stream of one authorizer.

    Args:
        clock: tells the time in two ways; a stream ends when the token is over by the first of them.

    Attributes:
        places: what counts the streams of other processes as well; ``None`` where each process counts its own.
        reviews: put questions about all of them.

    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._alarms = Alarms("authz-streams", clock=clock)
        self.reviews = Reviews(self, self.judge_one, clock=clock)
        self.places: Places | None = None
        self.after_fork()
        fork.register(self)

    def __len__(self) -> int:
        """Return how many streams are open."""
        return len(self._open)

    def __iter__(self) -> Iterator[Stream]:
        """Yield those that were open at this moment."""
        return iter(list(self._open))

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
            before = self._open.get(stream)
            is_new = before is None
            if before is None:
                self.check(org_id, at_most)
            elif before.alarm is not None and not before.is_told:
                self._alarms.cancel(before.alarm)
            self._open[stream] = opened = _Open(self, stream, principal, call)
            if 0 < left < math.inf:
                opened.alarm = self._alarms.set(self._clock.at(until), opened)
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

    @property
    def is_behind(self) -> bool:
        """Whether streams may be open that must end and have not been told."""
        return bool(self.reviews.questions) or self._alarms.is_ringing

    def judge(self, refusal: Question) -> None:
        """End every stream for which ``refusal`` returns an error, with that; no message of it goes on from now on."""
        self.reviews.ask(refusal)

    def settle(self) -> None:
        """End all that :meth:`judge` was told to end, before this returns; do so before anything is given back."""
        self.reviews.settle()

    def look(self, stream: Stream) -> None:
        """End a stream, before a message of it goes on, if it must end and has not been told yet."""
        if not self.is_behind:
            return
        self.judge_one(stream, self.reviews.questions)
        opened = self._open.get(stream)
        if opened is not None and opened.alarm is not None and self._clock.has_reached(opened.alarm.at):
            self.end_one(stream, TokenExpiredError())

    def judge_one(self, stream: Stream, refusals: Iterable[Question]) -> None:
        """End a stream if one of ``refusals`` returns an error, with that."""
        opened = self._open.get(stream)
        if opened is None or opened.is_told:
            return
        try:
            for refusal in refusals:
                error: Exception | None = refusal(opened.call, opened.principal)
                if error is not None:
                    break
            else:
                return
        except Exception as failure:  # noqa: BLE001 - the others must be judged, and this one must not go on without a verdict
            telemetry.unforeseen("stream", failure)
            error = InternalError()
        self.end_one(stream, error)

    def end_one(self, stream: Stream, error: Exception) -> None:
        """End a stream with ``error``, unless it has been told to end, and again later if it stays open."""
        # Who finds that it has been told must find its refusal as well.
        with self._telling:
            opened = self._open.get(stream)
            if opened is None or not opened.is_told:
                self._tell(stream, opened, error)

    def _tell(self, stream: Stream, opened: _Open | None, error: Exception) -> None:
        try:
            seconds = stream.end(error)
        except KeyboardInterrupt:
            raise
        except BaseException as failure:  # noqa: BLE001 - such as SystemExit of an observer: the others must still end
            telemetry.unforeseen("stream", failure)
            return
        if opened is None:
            return
        opened.is_told = True
        if seconds is None:
            return
        with self._lock:
            if self._open.get(stream) is opened:
                if opened.alarm is not None:
                    self._alarms.cancel(opened.alarm)
                again = Moment(monotonic=self._clock.monotonic() + seconds)
                opened.alarm = self._alarms.set(again, lambda: self._tell(stream, opened, error))

    def expire(self) -> None:
        """End every stream that must end by now; threads do so by themselves."""
        self.settle()
        self._alarms.ring()

    def after_fork(self) -> None:
        """Forget the streams, which are the parent's."""
        self._lock, self._telling = threading.Lock(), threading.RLock()
        self._open: dict[Stream, _Open] = {}
        self._counts: dict[str, int] = {}


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
