"""Questions about every open stream, which come up when something is withdrawn.

Who withdraws something is not held until thousands of streams have been told: a thread asks about a few of them at a
time. Until it is through, a stream is asked about before its next message as well.
"""

import threading
from collections.abc import Callable, Iterable, Sized
from typing import Any, Protocol

from authz.call.call import Call
from authz.call.principal import Principal
from authz.errors import AuthzError
from authz.runtime import fork
from authz.runtime.alarms import Alarms
from authz.runtime.clock import Clock, Moment
from authz.runtime.pace import Pace

Question = Callable[[Call | None, Principal], AuthzError | None]
"""Returns why what was admitted must end; questions that are equal are the same."""

FEW = 32
"""So many streams are asked about at once, which takes less than a millisecond, and needs no thread."""


class _Streams(Sized, Iterable[Any], Protocol):
    """Those that are open."""


class Reviews:
    """Put questions about all open streams.

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
