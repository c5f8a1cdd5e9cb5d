"""Organizations as a directory outside has them: looked up when they call, remembered, and used through an outage.

How long a record lives:

1. A fresh record is returned at once, and renewed in the background before it is no longer fresh.
2. An older one is renewed first. While that fails the old record serves, for an hour after the last success.
3. One question about an organization at a time, which all callers share (:mod:`authz.runtime.asking`).
4. While the directory fails, one question at a time finds out whether it still does, after growing pauses.
"""

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from cachetools import LRUCache, TTLCache

from authz.errors import DirectoryUnavailableError
from authz.organizations.look_ups import AsyncLookUp, LookUp, look_ups
from authz.organizations.organization import Organization
from authz.runtime import fork, telemetry
from authz.runtime.asking import Asking, ClosedError, NoAnswerError, Question
from authz.runtime.backoff import JITTER, uniform
from authz.runtime.clock import SYSTEM_CLOCK, Clock, Moment
from authz.runtime.flow import DeadlineError, Flow, Wait
from authz.runtime.shares import Shares

FRESH = 300.0
"""Seconds for which a record is used without asking."""

STALE = 3600.0
"""Seconds after the last success until a record is no longer believed, while the directory fails."""

NONE_SECONDS = 60.0
"""Seconds for which it is remembered that there is no such organization."""

_REFRESH_AT = 0.8
# An answer about one organization that cannot be used says nothing about the others.
_UNUSABLE_SECONDS, _UNUSABLE = 60.0, 1_000
_PATIENCE = 5.0
# A call that has a record waits no longer than this for a newer one.
_PATIENCE_FOR_NEWER = 1.0
# If an answer takes a tenth of a second, so many are answered within the patience.
_MAX_QUESTIONS = 256
_MAX_BLOCKED_THREADS = 16


class LookUpError(NoAnswerError):
    """A directory gave no answer; ``is_about_one`` if that concerns only the organization that was asked about."""


@dataclass(slots=True)
class DirectoryCounters:
    """How questions to a directory have ended so far; those ``refused`` were not asked."""

    found: int = 0
    unknown: int = 0
    failed: int = 0
    refused: int = 0


class _Record(NamedTuple):
    organization: Organization | None
    said_at: Moment
    refresh_after: float
    fresh: float
    stale: float


_Question = Question[str, _Record]


class Directory:
    """Ask who an organization is, sparingly.

    One object serves any number of threads and event loops.

    Args:
        look_up: returns what is known of an organization, or ``None`` if there is none of that id; it raises
            :class:`LookUpError` if it cannot say. It is called on one of a few threads, where it may block for some
            seconds. If it is async it runs on the event loop that decides the call, and in a server of threads on a
            loop of its own; there it is cancelled after 30 s.
        size: how many organizations are remembered.
        clock: where the time comes from; answers age by whichever of its two clocks runs further.
        jitter: returns a number between -1 and 1, so that many servers do not ask at once.

    """

    def __init__(
        self,
        look_up: LookUp | AsyncLookUp,
        *,
        size: int = 10_000,
        clock: Clock = SYSTEM_CLOCK,
        jitter: Callable[[], float] = uniform,
    ) -> None:
        self._look_up = look_up
        self._size = size
        self._clock = clock
        self._jitter = jitter
        self._asking = Asking[str, _Record]("directory", clock, jitter)
        self.counters = DirectoryCounters()
        self.causes = self._asking.causes
        """How many questions have failed so far, by :func:`authz.runtime.network.causes.label`."""
        self.after_fork()
        fork.register(self)

    def find(self, org_id: str) -> Flow[Organization | None]:
        """Return what is known of an organization, or ``None`` if there is none of that id, as a flow.

        Raises:
            DirectoryUnavailableError: the directory gives no answer, and nothing is remembered.
            OverloadedError: too many threads wait for one.

        """
        with self._asking.lock:
            record = self._records.get(org_id)
            age = 0.0 if record is None else self._clock.since(record.said_at)
            if record is not None and age < record.refresh_after:
                return record.organization
            if record is not None and age >= record.stale:
                record = None
            question, is_ours = self._join_or_begin(org_id)
            # A question while the directory fails is to find out whether it still does: no call waits for it if it
            # has a record.
            is_enough = record is not None and (age < record.fresh or self._asking.backoff.is_failing)
            self.counters.refused += question is None and record is None
        if is_ours and question is not None:
            self._launch(question)
        if record is not None and (is_enough or question is None):
            return record.organization
        if question is not None:
            newer = yield from self._answer(question, _PATIENCE if record is None else _PATIENCE_FOR_NEWER)
            record = newer or record
        if record is None:
            raise self._unavailable()
        return record.organization

    def remembers(self, org_id: str) -> bool:
        """Say whether an organization was asked about, and the answer is still here, however old."""
        with self._asking.lock:
            return org_id in self._records

    def recall(self, org_id: str) -> Organization | None:
        """Return what was known of an organization last, without a question; ``None`` if nothing is remembered."""
        with self._asking.lock:
            record = self._records.get(org_id)
        return None if record is None else record.organization

    def renew(self, org_id: str) -> None:
        """Believe what is remembered of an organization no longer without asking: it has changed.

        The next call waits up to a second for the answer, and until there is one the old answer serves.
        """
        with self._asking.lock:
            record = self._records.get(org_id)
            if record is not None:
                self._records[org_id] = record._replace(refresh_after=0.0, fresh=0.0)
            under_way = self._asking.questions.get(org_id)
            if under_way is not None:
                # Its answer may be of the time before.
                self._asking.forget(under_way)
            self._unusable.pop(org_id, None)

    def after_fork(self) -> None:
        """Start without records and threads, which are the parent's."""
        self._records: LRUCache[str, _Record] = LRUCache(self._size)
        self._unusable: TTLCache[str, None] = TTLCache(_UNUSABLE, _UNUSABLE_SECONDS, timer=self._clock.monotonic)
        self._look_ups = look_ups(self._look_up, self._is_due)
        # While the directory hangs, few threads of a server's pool may wait for it.
        self._threads = Shares(_MAX_BLOCKED_THREADS)

    def close(self) -> None:
        """Stop asking."""
        with self._asking.lock:
            running, self._look_ups = self._look_ups, look_ups(self._look_up, self._is_due)
        running.close()

    def _join_or_begin(self, org_id: str) -> tuple[_Question | None, bool]:
        under_way = self._asking.questions.get(org_id)
        if under_way is not None and self._look_ups.is_lost(org_id):
            self._asking.forget(under_way)
        elif under_way is not None:
            return (None if self._asking.backoff.is_failing else under_way), False
        is_full = len(self._asking.questions) >= _MAX_QUESTIONS
        if is_full or not self._asking.may_ask or org_id in self._unusable:
            return None, False
        return self._asking.begin(Question(org_id)), True

    def _launch(self, question: _Question) -> None:
        try:
            answer = self._look_ups.ask(question.subject)
        except RuntimeError as error:
            # No thread can be started: there are too many, or the interpreter ends. Or an event loop ends.
            answer = Future()
            answer.set_exception(error)
        self._asking.expect(answer, partial(self._record, question), partial(self._finish, question))

    def _is_due(self) -> bool:
        # Questions that waited for their turn while others failed would only fail as well.
        return self._asking.pause <= 0

    def _finish(self, question: _Question, record: _Record | None, failure: NoAnswerError | None) -> None:
        with self._asking.lock:
            before = self._asking.error
            if isinstance(failure, ClosedError):
                # It was never asked, so nothing has failed.
                self._asking.forget(question)
                self.counters.refused += 1
            else:
                is_shared = self._asking.end(question, failure)
                self._keep(question.subject, record, failure, is_latest=is_shared)
        if not isinstance(failure, ClosedError):
            self._tell(before, failure)
        question.answer.set_result(record)

    def _record(self, question: _Question, organization: Organization | None) -> _Record:
        # What the directory says may be true only since before it said it.
        fresh, stale = (NONE_SECONDS, NONE_SECONDS) if organization is None else (FRESH, STALE)
        ahead = fresh * (_REFRESH_AT + JITTER * self._jitter())
        return _Record(organization, question.asked_at, ahead, fresh, stale)

    def _keep(self, org_id: str, record: _Record | None, failure: NoAnswerError | None, *, is_latest: bool) -> None:
        if record is not None:
            self.counters.unknown += record.organization is None
            self.counters.found += record.organization is not None
            if is_latest:
                self._records[org_id] = record
        elif failure is not None:
            self.counters.failed += 1
            if failure.is_about_one and is_latest:
                self._unusable[org_id] = None

    def _tell(self, before: str, failure: NoAnswerError | None) -> None:
        error = "" if failure is None else str(failure)
        # Once, not for every attempt: an outage is one event.
        if failure is not None and error != before:
            level = telemetry.ERROR if failure.is_ours else telemetry.WARNING
            telemetry.event(level, "directory_failed", directory=type(self).__name__, error=error)
        elif before and failure is None:
            telemetry.event(telemetry.INFO, "directory_recovered", directory=type(self).__name__)

    def _answer(self, question: _Question, patience: float) -> Flow[_Record | None]:
        org_id = question.subject
        try:
            answer: _Record | None = yield Wait(question.answer, patience, self._threads.of(org_id), org_id)
        except DeadlineError:
            # A caller's short deadline is no outage, and no way to choose the older record.
            raise self._unavailable() from None
        except (TimeoutError, CancelledError):
            return None
        return answer

    def _unavailable(self) -> DirectoryUnavailableError:
        retry_after, cause = max(1.0, self._asking.pause), self._asking.error or "timeout"
        return DirectoryUnavailableError(f"no answer from the directory: {cause}", retry_after=retry_after, cause=cause)
