"""Ask another server once, and share its answer.

One question about a subject is under way at a time, and every caller that needs the answer waits for that one. After
a failure there is a pause, and then one question at a time finds out whether the server answers again. What an answer
means, how long it is kept and who may wait for it is left to the owner.
"""

import threading
from collections import Counter
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from authz.runtime import fork, telemetry
from authz.runtime.backoff import Backoff, uniform
from authz.runtime.clock import Clock, Moment
from authz.runtime.network import causes
from authz.runtime.network.transport import TransportError

S = TypeVar("S", bound=Hashable)
A = TypeVar("A")
R = TypeVar("R")


class NoAnswerError(Exception):
    """A question brought no answer that can be used; the message is logged, so it must hold nothing secret.

    Args:
        why: the cause, in the words of :mod:`authz.runtime.network.causes`, or in fixed words of your own.
        pause: how many seconds the server should not be asked.
        is_about_one: whether only this subject is concerned, so that the server may be asked about others.
        is_outage: whether the server gives no answer, or says itself that it fails.
        is_ours: whether our own configuration is wrong.

    """

    def __init__(
        self, why: str, *, pause: float = 0, is_about_one: bool = False, is_outage: bool = False, is_ours: bool = False
    ) -> None:
        super().__init__(why)
        self.pause, self.is_about_one, self.is_outage, self.is_ours = pause, is_about_one, is_outage, is_ours


class ClosedError(NoAnswerError):
    """The request was cancelled, perhaps before it was sent."""


@dataclass(slots=True, eq=False)
class Question(Generic[S, A]):
    """One question, whose answer every caller that asks about its subject shares."""

    subject: S
    number: int = 0
    """Its place among all that were asked; 0 until it is asked."""
    asked_at: Moment = field(default_factory=Moment)
    failure: NoAnswerError | None = None
    """Why it has no answer."""
    answer: "Future[A | None]" = field(default_factory=Future)
    """Set by the owner; ``None`` if there is no answer."""


class Asking(Generic[S, A]):
    """The questions to one server.

    It takes no lock itself: the owner holds ``lock`` around every use but :meth:`expect`, and around what it keeps.

    Args:
        what: what to call it in the log where reading an answer raises something unforeseen.
        clock: where the time comes from; pauses go by its ``monotonic``.
        jitter: returns a number between -1 and 1, so that many processes do not ask at once.

    """

    def __init__(self, what: str, clock: Clock, jitter: Callable[[], float] = uniform) -> None:
        self._what, self._clock = what, clock
        self.backoff = Backoff(jitter)
        self.begun = 0
        """How many questions have been asked so far."""
        self.failure: NoAnswerError | None = None
        """Why the last question has no answer; ``None`` if it has one."""
        self.causes = Counter[str]()
        """How many questions have failed so far, by :func:`authz.runtime.network.causes.label`."""
        self.after_fork()
        fork.register(self)

    def after_fork(self) -> None:
        """Forget the questions, which are the parent's."""
        self.lock = threading.Lock()
        self.questions: dict[S, Question[S, A]] = {}

    @property
    def pause(self) -> float:
        """The seconds until the server may be asked again; 0 or less where it may be now."""
        return self.backoff.retry_at - self._clock.monotonic()

    @property
    def may_ask(self) -> bool:
        """Whether another question may be asked now: not during a pause, and one at a time while the server fails."""
        return self.pause <= 0 and not (self.backoff.is_failing and self.questions)

    @property
    def error(self) -> str:
        """Why the last question has no answer; empty if it has one, or is the first and still under way."""
        return "" if self.failure is None else str(self.failure)

    @property
    def was_outage(self) -> bool:
        """Whether the last question has no answer because the server was down or failed itself."""
        return self.failure is not None and self.failure.is_outage

    def begin(self, question: Question[S, A]) -> Question[S, A]:
        """Share ``question``, which the owner asks now, and return it."""
        self.begun += 1
        question.number, question.asked_at = self.begun, self._clock.now()
        self.questions[question.subject] = question
        return question

    def expect(
        self, response: "Future[R]", read: Callable[[R], A], finish: Callable[[A | None, NoAnswerError | None], None]
    ) -> None:
        """Have ``finish`` called once, with what ``read`` makes of a response or with why there is no answer.

        Both are called on the thread that brings the response, perhaps before this returns; ``read`` may raise
        :class:`NoAnswerError`.
        """
        response.add_done_callback(lambda done: finish(*self._outcome(done, read)))

    def end(self, question: Question[S, A], failure: NoAnswerError | None) -> bool:
        """Note that ``question`` was answered, or why it was not; say what :meth:`forget` says."""
        self.failure = question.failure = failure
        if failure is None:
            self.backoff.succeeded()
        else:
            self.causes[causes.label(self.error)] += 1
        if failure is not None and not failure.is_about_one:
            # Questions under way together fail together: that is one failure, not several.
            began = question.asked_at.monotonic
            self.backoff.failed(self._clock.monotonic(), at_least=failure.pause, began=began)
        return self.forget(question)

    def forget(self, question: Question[S, A]) -> bool:
        """Share ``question`` no longer; say whether it was shared: a forked child has questions of its own."""
        is_shared = self.questions.get(question.subject) is question
        if is_shared:
            del self.questions[question.subject]
        return is_shared

    def _outcome(self, response: "Future[R]", read: Callable[[R], A]) -> tuple[A | None, NoAnswerError | None]:
        try:
            return read(response.result()), None
        except NoAnswerError as failure:
            return None, failure
        except TransportError as failure:
            return None, NoAnswerError(failure.reason, is_outage=failure.is_outage)
        except CancelledError:
            return None, ClosedError("closed")
        except BaseException as error:  # noqa: BLE001 - SystemExit, too: callers that wait must learn that it ended
            telemetry.unforeseen(self._what, error)
            return None, NoAnswerError("unforeseen")
