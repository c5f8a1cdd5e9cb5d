"""Organizations of a directory elsewhere, such as WorkOS: asked for when they call, and remembered.

How long a record lives:

1. A fresh record is used at once, and renewed in the background before it expires.
2. An older record is renewed first. While that fails the old one serves, for an hour after the last success.
3. There is one question about an organization at a time; all callers that need the answer share it.
4. While the directory fails, one question at a time finds out whether it still does, after growing pauses.
"""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from cachetools import LRUCache, TTLCache

from authz.errors import DirectoryUnavailableError
from authz.organizations.organization import Organization
from authz.runtime import fork, telemetry
from authz.runtime.backoff import JITTER, Backoff, uniform
from authz.runtime.clock import SYSTEM_CLOCK, Clock, Moment
from authz.runtime.flow import DeadlineError, Flow, Wait
from authz.runtime.network import causes
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
# A call for which an older record is remembered waits no longer than this for a newer one.
_PATIENCE_FOR_NEWER = 1.0
_THREADS = 8
# If an answer takes a tenth of a second, so many are answered within the patience.
_MAX_QUESTIONS = 256
_MAX_BLOCKED_THREADS = 16


class LookUpError(Exception):
    """A directory gave no answer; the message is logged, so it must hold nothing secret.

    Args:
        why: the cause, in the words of :mod:`authz.runtime.network.causes`, or in fixed words of your own.
        pause: for how many seconds not to ask again.
        is_about_one: whether it concerns only this organization, so that questions about others go on.
        is_ours: whether our own configuration is wrong.

    """

    def __init__(self, why: str, *, pause: float = 0.0, is_about_one: bool = False, is_ours: bool = False) -> None:
        self.pause, self.is_about_one, self.is_ours = pause, is_about_one, is_ours
        super().__init__(why)


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


class Directory:
    """Ask who an organization is, sparingly.

    One object serves any number of threads and event loops.

    Args:
        look_up: returns what is known of an organization, or ``None`` if there is none of that id. It is called on
            one of a few threads, where it may block for some seconds; it raises :class:`LookUpError` if it cannot say.
        size: how many organizations are remembered.
        clock: where the time comes from; answers age by whichever of its two clocks runs further.
        jitter: returns a number between -1 and 1, so that many servers do not ask at once.

    """

    def __init__(
        self,
        look_up: Callable[[str], Organization | None],
        *,
        size: int = 10_000,
        clock: Clock = SYSTEM_CLOCK,
        jitter: Callable[[], float] = uniform,
    ) -> None:
        self._look_up = look_up
        self._size = size
        self._clock, self._now = clock, clock.monotonic
        self._jitter = jitter
        self._backoff = Backoff(jitter)
        self._error = ""
        self.counters = DirectoryCounters()
        self.causes = Counter[str]()
        """How many questions have failed so far, by :func:`authz.runtime.network.causes.label`."""
        self.after_fork()
        fork.register(self)

    def find(self, org_id: str) -> Flow[Organization | None]:
        """Return what is known of an organization, or ``None`` if there is none of that id, as a flow.

        Raises:
            DirectoryUnavailableError: the directory gives no answer, and no usable record is remembered.
            OverloadedError: too many threads wait for it.

        """
        with self._lock:
            record = self._records.get(org_id)
            age = 0.0 if record is None else self._clock.since(record.said_at)
            if record is not None and age < record.refresh_after:
                return record.organization
            if record is not None and age >= record.stale:
                record = None
            question, is_ours = self._join_or_begin(org_id, self._now())
            # While the directory fails, a question only finds out whether it still does: no call waits for it.
            is_enough = record is not None and (age < record.fresh or self._backoff.is_failing)
            self.counters.refused += question is None and record is None
        if is_ours and question is not None:
            self._launch(org_id, question)
        if record is not None and (is_enough or question is None):
            return record.organization
        if question is not None:
            newer = yield from self._answer(org_id, question, _PATIENCE if record is None else _PATIENCE_FOR_NEWER)
            record = newer or record
        if record is None:
            raise self._unavailable()
        return record.organization

    def remembers(self, org_id: str) -> bool:
        """Say whether an answer about an organization is remembered, however old."""
        with self._lock:
            return org_id in self._records

    def recall(self, org_id: str) -> Organization | None:
        """Return the last answer about an organization without asking; ``None`` if none is remembered."""
        with self._lock:
            record = self._records.get(org_id)
        return None if record is None else record.organization

    def after_fork(self) -> None:
        """Start without records, questions and threads, which are the parent's."""
        self._lock = threading.Lock()
        self._records: LRUCache[str, _Record] = LRUCache(self._size)
        self._unusable: TTLCache[str, None] = TTLCache(_UNUSABLE, _UNUSABLE_SECONDS, timer=self._now)
        self._questions: dict[str, Future[_Record | None]] = {}
        self._pool = _new_pool()
        # While the directory hangs, few threads of a server's pool may wait for it.
        self._threads = Shares(_MAX_BLOCKED_THREADS)

    def close(self) -> None:
        """Stop asking."""
        with self._lock:
            pool = self._pool
            self._pool = _new_pool()
        pool.shutdown(wait=False, cancel_futures=True)

    def _join_or_begin(self, org_id: str, now: float) -> tuple["Future[_Record | None] | None", bool]:
        pending = self._questions.get(org_id)
        if pending is not None:
            return (None if self._backoff.is_failing else pending), False
        at_most = 1 if self._backoff.is_failing else _MAX_QUESTIONS
        if now < self._backoff.retry_at or len(self._questions) >= at_most or org_id in self._unusable:
            return None, False
        question = self._questions[org_id] = Future()
        return question, True

    def _launch(self, org_id: str, question: "Future[_Record | None]") -> None:
        started = self._clock.now()
        finish = partial(self._finish, org_id, question, started)
        try:
            answer = self._pool.submit(self._ask, org_id)
        except RuntimeError as error:
            # No thread can be started: there are too many, or the interpreter ends.
            answer = Future()
            answer.set_exception(error)
        answer.add_done_callback(finish)

    def _ask(self, org_id: str) -> Organization | None:
        # Questions that waited for a thread while others failed would fail as well.
        if self._now() < self._backoff.retry_at:
            raise CancelledError
        return self._look_up(org_id)

    def _finish(
        self, org_id: str, question: "Future[_Record | None]", started: Moment, answer: "Future[Organization | None]"
    ) -> None:
        record, failure = None, None
        try:
            record = self._record(answer.result(), started)
        except CancelledError:
            # It was never asked, so nothing has failed.
            pass
        except LookUpError as error:
            failure = error
        except BaseException as error:  # noqa: BLE001 - SystemExit, too: waiting calls must learn that it ended
            failure = LookUpError("unforeseen")
            telemetry.unforeseen("directory", error)
        with self._lock:
            if self._questions.get(org_id) is question:
                del self._questions[org_id]
            if record is not None:
                self._keep(org_id, record)
            elif failure is not None:
                self._fail(org_id, failure, started.monotonic)
            else:
                self.counters.refused += 1
        if record is not None or failure is not None:
            self._tell(failure)
        question.set_result(record)

    def _record(self, organization: Organization | None, started: Moment) -> _Record:
        # Aged from the start of the question: the answer may have been true only then.
        fresh, stale = (NONE_SECONDS, NONE_SECONDS) if organization is None else (FRESH, STALE)
        ahead = fresh * (_REFRESH_AT + JITTER * self._jitter())
        return _Record(organization, started, ahead, fresh, stale)

    def _keep(self, org_id: str, record: _Record) -> None:
        self.counters.unknown += record.organization is None
        self.counters.found += record.organization is not None
        self._records[org_id] = record
        self._backoff.succeeded()

    def _fail(self, org_id: str, failure: LookUpError, started: float) -> None:
        self.counters.failed += 1
        self.causes[causes.label(str(failure))] += 1
        if failure.is_about_one:
            self._unusable[org_id] = None
        else:
            # Questions under way together fail together: that counts as one failure, not eight.
            self._backoff.failed(self._now(), at_least=failure.pause, began=started)

    def _tell(self, failure: LookUpError | None) -> None:
        error, before = "" if failure is None else str(failure), self._error
        self._error = error
        # Logged once, not for every attempt: an outage is one event.
        if failure is not None and error != before:
            level = telemetry.ERROR if failure.is_ours else telemetry.WARNING
            telemetry.event(level, "directory_failed", directory=type(self).__name__, error=error)
        elif before and failure is None:
            telemetry.event(telemetry.INFO, "directory_recovered", directory=type(self).__name__)

    def _answer(self, org_id: str, question: "Future[_Record | None]", patience: float) -> Flow[_Record | None]:
        try:
            answer: _Record | None = yield Wait(question, patience, self._threads.of(org_id), org_id)
        except DeadlineError:
            # A caller's short deadline is no outage, and no way to choose the older record.
            raise self._unavailable() from None
        except (TimeoutError, CancelledError):
            return None
        return answer

    def _unavailable(self) -> DirectoryUnavailableError:
        retry_after = max(1.0, self._backoff.retry_at - self._now())
        cause = self._error or "timeout"
        return DirectoryUnavailableError(f"no answer from the directory: {cause}", retry_after=retry_after, cause=cause)


def _new_pool() -> ThreadPoolExecutor:
    # It starts no thread before there is something to do.
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="authz-directory")
