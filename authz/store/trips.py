"""Trips to the store that no decision may wait for long: what waits together goes together."""

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from authz.runtime import fork, telemetry
from authz.runtime.backoff import Backoff
from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.runtime.threads import restarting
from authz.store.connection import OwnClient, Script, Store, StoreError, reason_of

if TYPE_CHECKING:
    from redis import Redis

PATIENCE = 0.05
"""Seconds that a decision waits for the store; if an answer to any call is older, no other decision waits at all."""

# Seconds between attempts while the store does not answer.
_FIRST, _LAST = 0.1, 1.0
# How many requests one pipeline may hold, so that its answer does not take too long.
_AT_ONCE = 500
# Seconds that the thread stays without work, so that not every request starts one.
_LINGER = 10.0


class Request(NamedTuple):
    """One request to the store.

    Args:
        script: what it is to run.
        key: the one key on which it runs.
        args: what the script is told.
        then: is called once, on the thread of the trips, with the answer, or with ``None`` if there is none; then the
            script has run or has not.

    """

    script: Script
    key: str
    args: Sequence[str | int | float]
    then: Callable[[Any], object]


class Trips:
    """Send requests to the store, on one thread with one connection.

    All requests that wait go out in one pipeline. None is ever repeated: one whose answer was lost may have been
    served.

    Args:
        store: the store.
        clock: its ``monotonic`` says how long an answer takes.

    """

    def __init__(self, store: Store, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.store, self._monotonic = store, clock.monotonic
        self._backoff = Backoff(first=_FIRST, last=_LAST)
        self._own = OwnClient()
        self.after_fork()
        fork.register(self)

    def after_fork(self) -> None:
        """Forget the thread, its connection and the requests, which are the parent's."""
        self._changed = threading.Condition(threading.Lock())
        self._requests: list[Request] = []
        self._oldest: float | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    @property
    def is_answering(self) -> bool:
        """Whether the store answers, and soon enough for a decision to wait for it."""
        oldest = self._oldest
        if self._is_closed or self._backoff.is_failing:
            return False
        return oldest is None or self._monotonic() - oldest < PATIENCE

    @property
    def is_open(self) -> bool:
        """Whether a request may be sent now: always while the store answers, and else once after each pause."""
        if self._is_closed:
            return False
        return self.is_answering or (self._oldest is None and self._monotonic() >= self._backoff.retry_at)

    def send(self, request: Request) -> None:
        """Send a request soon, without waiting."""
        with self._changed:
            self._requests.append(request)
            if self._oldest is None:
                self._oldest = self._monotonic()
            if self._thread is None:
                thread = threading.Thread(target=restarting(self._work), name="authz-trips", daemon=True)
                thread.start()
                # Not before: where no thread can be had, the next request must ask for one again.
                self._thread = thread
            else:
                self._changed.notify()

    def close(self, seconds: float = 1.0) -> None:
        """Send what waits, and stop the thread; wait so many seconds for that."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(seconds)

    def _work(self) -> None:
        while requests := self._next():
            answers, failure = self._answers(requests)
            with self._changed:
                if failure:
                    # What came meanwhile would only wait as long again.
                    requests += self._requests
                    self._requests = []
                self._oldest = self._monotonic() if self._requests else None
                self._note(failure)
            for request, answer in itertools.zip_longest(requests, answers):
                _tell(request, answer)

    def _next(self) -> list[Request]:
        """Return the requests that wait, as soon as there are any; none when the thread is to end."""
        with self._changed:
            if not self._requests and not self._is_closed:
                self._changed.wait(_LINGER)
            if not self._requests:
                self._thread = None
                self._own.close()
                return []
            requests, self._requests = self._requests[:_AT_ONCE], self._requests[_AT_ONCE:]
            self._oldest = self._monotonic()
            return requests

    def _answers(self, requests: list[Request]) -> tuple[list[Any], str]:
        """Return the answers, each ``None`` where it is an error, and why there is none at all, or ``""``."""
        try:
            client = self._own.client = self._own.client or self.store.client()
            with self.store.asking(client):
                answers = _exchange(client, requests)
                lacking = [number for number, answer in enumerate(answers) if _lacks_script(answer)]
                if lacking:
                    # Such a request has not been served, so it may be sent again.
                    again = _exchange(client, [requests[number] for number in lacking], in_full=True)
                    for number, answer in zip(lacking, again, strict=True):
                        answers[number] = answer
        except BaseException as error:  # noqa: BLE001 - whatever happened, the requests have no answer
            self._own.close()
            if not isinstance(error, StoreError):
                telemetry.unforeseen("authz-trips", error)
            return [], error.reason if isinstance(error, StoreError) else "unforeseen"
        served = [None if isinstance(answer, Exception) else answer for answer in answers]
        if any(answer is not None for answer in served):
            return served, ""
        # Such as from a server that has become a replica: another connection may lead to another server.
        self._own.close()
        return served, reason_of(answers[0])

    def _note(self, failure: str) -> None:
        was_failing = self._backoff.is_failing
        if failure:
            self._backoff.failed(self._monotonic())
        else:
            self._backoff.succeeded()
        if was_failing != self._backoff.is_failing:
            if failure:
                telemetry.event(telemetry.WARNING, "quota_store_failed", error=failure)
            else:
                telemetry.event(telemetry.INFO, "quota_store_recovered")


def _exchange(client: "Redis", requests: list[Request], *, in_full: bool = False) -> list[Any]:
    with client.pipeline(transaction=False) as pipeline:
        for script, key, args, _then in requests:
            if in_full:
                pipeline.eval(script.text, 1, key, *args)
            else:
                pipeline.evalsha(script.sha, 1, key, *args)
        return pipeline.execute(raise_on_error=False)


def _lacks_script(answer: object) -> bool:
    """Say whether ``answer`` means that the store does not know the script, as after it has started."""
    return type(answer).__name__ == "NoScriptError"


def _tell(request: Request, answer: Any) -> None:
    try:
        request.then(answer)
    except Exception as error:  # noqa: BLE001 - the others wait for their answers too
        telemetry.unforeseen("authz-trips", error)
