"""Asking the issuer whether a token is still active (RFC 7662), sparingly.

A signature says what was true when the token was issued; introspection says
what is true now. It is asked only about tokens that have passed every local
check, so garbage never makes a request.

A limit is no outage: a question that cannot be asked now because there are
too many, or because the issuer asks for a pause, is never answered with the
signature's word, whatever an :class:`Assurance` says.
"""

import threading
from collections import Counter
from collections.abc import Collection, Hashable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import NamedTuple

from cachetools import LRUCache

from authz.call.principal import Principal
from authz.call.requirements import ACTIVE_SECONDS, Assurance
from authz.errors import (
    ConfigError,
    IntrospectionUnavailableError,
    OverloadedError,
    TokenInactiveError,
    UnavailableError,
)
from authz.issuer.client_authentication import authenticated, check_auth_method
from authz.issuer.discovery import issuer_endpoint
from authz.issuer.token_status import TokenStatus, read_status
from authz.runtime import fork, telemetry
from authz.runtime.backoff import Backoff
from authz.runtime.clock import SYSTEM_CLOCK, Clock, Moment
from authz.runtime.flow import Flow, Wait
from authz.runtime.network import causes
from authz.runtime.network.transport import HttpResponse, Transport, TransportError
from authz.runtime.shares import Shares, Turns
from authz.settings.variables import AuthMethod
from authz.token.jws import digest_of

INACTIVE_SECONDS = 10.0

MAX_WAITING = 256
"""How many questions may wait for their turn."""

_PATIENCE = 5.0


@dataclass(slots=True)
class IntrospectionCounters:
    """What an introspector has done so far."""

    requests: int = 0
    failures: int = 0
    active: int = 0
    inactive: int = 0
    remembered: int = 0
    refused: int = 0
    overloaded: int = 0


class _Word(NamedTuple):
    is_active: bool
    said_at: Moment
    lasts: float


@dataclass(slots=True)
class _Question:
    """One request, waiting for its turn or under way, which everybody who asks about the token shares."""

    token: str
    digest: bytes
    principal: Principal
    given_up_at: float
    """When the call that asked first has lost patience."""
    number: int = 0
    """Which of all that were asked it is; 0 until its turn."""
    asked_at: Moment | None = None
    is_outage: bool | None = None
    """Whether it failed because the issuer gives no answer; ``None`` as long as it has not failed."""
    answer: "Future[_Word | None]" = field(default_factory=Future)


class Introspector:
    """Ask an issuer's introspection endpoint about tokens.

    Answers are remembered by a hash of the token: active ones for 30 s and not past ``exp``, inactive ones for 10 s.
    One request per token at a time, 16 in all; others wait for their turn, which organizations take one after the
    other, however many questions each of them has. After failures a pause of 1 s, doubling to 60 s.

    Args:
        issuer: the AuthKit domain; the endpoint is ``{issuer}/oauth2/introspection``.
        endpoint: the endpoint itself, instead.
        discover: look the endpoint up in the issuer's metadata (RFC 8414), when it is first needed.
        discover_hosts: hosts that it may have then, besides the issuer's own.
        client_id: our own credentials at the issuer.
        client_secret: their secret; never logged, never part of a ``repr`` or an error.
        auth_method: ``client_secret_post`` or ``client_secret_basic`` (RFC 6749 section 2.3.1).
        max_in_flight: how many requests may be under way.
        cache_size: how many answers are remembered.
        transport: how the endpoint is asked; by default one of its own.
        clock: where the time comes from.

    Raises:
        ConfigError: an argument that cannot work; the message names it.

    """

    def __init__(
        self,
        issuer: str | None = None,
        *,
        client_id: str,
        client_secret: str,
        endpoint: str | None = None,
        discover: bool = False,
        discover_hosts: Collection[str] = (),
        auth_method: AuthMethod = "client_secret_post",
        max_in_flight: int = 16,
        cache_size: int = 10_000,
        transport: Transport | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if (issuer is None) == (endpoint is None):
            raise ConfigError("issuer and endpoint: give one of them")
        self._endpoint = issuer_endpoint(
            "introspection_endpoint",
            issuer,
            transport or Transport(),
            url=endpoint,
            setting="endpoint",
            discover=discover,
            discover_hosts=discover_hosts,
            clock=clock,
        )
        for name, value in (("client_id", client_id), ("client_secret", client_secret)):
            if not value:
                raise ConfigError(f"{name}: must not be empty")
        check_auth_method(auth_method)
        for name, number in (("max_in_flight", max_in_flight), ("cache_size", cache_size)):
            if number < 1:
                raise ConfigError(f"{name}: {number!r} must be 1 or more")
        self._client_id, self._client_secret, self._auth_method = client_id, client_secret, auth_method
        self._max_in_flight, self._cache_size = max_in_flight, cache_size
        self._clock = clock
        self._backoff = Backoff()
        # Whether it was no answer that the pause in force is for.
        self._is_outage = False
        # Why the last question failed; empty if it did not.
        self._error = ""
        self._begun = 0
        self.counters = IntrospectionCounters()
        self.causes = Counter[str]()
        """How many questions have failed so far, by :func:`authz.runtime.network.causes.label`."""
        self.after_fork()
        fork.register(self)

    def __repr__(self) -> str:
        """Name the endpoint, nothing else."""
        return f"{type(self).__name__}(endpoint={self._endpoint.url!r})"

    def introspect(self, token: str, principal: Principal, assurance: Assurance) -> Flow[None]:
        """Check that ``token`` has not been withdrawn, as a flow.

        Args:
            token: one that has passed the local checks.
            principal: whom it named there; the issuer must say the same.
            assurance: how old its word may be, and what if it cannot be had.

        Raises:
            TokenInactiveError: the issuer says so, or speaks of somebody else.
            IntrospectionUnavailableError: it cannot be asked, and ``assurance`` wants its word.
            OverloadedError: too many questions wait, whatever ``assurance`` says.

        """
        try:
            is_active = yield from self._ask(token, principal, assurance.max_age)
        except IntrospectionUnavailableError as error:
            if assurance.if_unavailable == "deny" or not error.is_outage:
                raise
            return
        if not is_active:
            raise TokenInactiveError

    def close(self) -> None:
        """Stop asking."""
        self._endpoint.close()

    def after_fork(self) -> None:
        """Start without answers and questions, which are the parent's."""
        self._lock = threading.Lock()
        self._words: LRUCache[bytes, _Word] = LRUCache(self._cache_size)
        self._questions: dict[bytes, _Question] = {}
        self._turns = Turns[_Question](self._max_in_flight, MAX_WAITING)
        self._is_asking = False
        # While the issuer hangs, few threads of a server's pool may wait for it.
        self._threads = Shares(self._max_in_flight)

    def _ask(self, token: str, principal: Principal, max_age: float) -> Flow[bool]:
        digest = digest_of(token)
        begun_before, after = self._begun, self._clock.now().after(-max_age)
        while True:
            with self._lock:
                word = self._remembered(digest, principal, said_after=after)
                if word is not None:
                    return word.is_active
                question, is_ours, displaced = self._join_or_begin(token, digest, principal)
            if displaced is not None:
                displaced.answer.set_result(None)
            if is_ours:
                self._take_turns()
            whose = _whose(principal)
            try:
                answer: _Word | None = yield Wait(question.answer, _PATIENCE, self._threads.of(whose), whose)
            except (TimeoutError, CancelledError):
                raise self._unheard(question) from None
            if answer is None:
                raise self._unheard(question)
            # A question that this call only joined was asked before it, perhaps before the token was withdrawn.
            # The one after that was not: so this goes round twice at the most. Counted, for a clock may stand still.
            if (
                is_ours
                or not answer.is_active
                or not after.has_reached(answer.said_at)
                or question.number > begun_before
            ):
                return answer.is_active

    def _remembered(self, digest: bytes, principal: Principal, *, said_after: Moment) -> _Word | None:
        word = self._words.get(digest)
        if word is None or self._clock.since(word.said_at) >= word.lasts:
            return None
        # An answer that the token is withdrawn does not age: nobody brings tokens back.
        if word.is_active and (said_after.has_reached(word.said_at) or self._clock.time() >= principal.expires_at):
            return None
        self.counters.remembered += 1
        return word

    def _join_or_begin(
        self, token: str, digest: bytes, principal: Principal
    ) -> tuple[_Question, bool, _Question | None]:
        """Return the question about a token, whether it is a new one, and which other one must go for it."""
        question, now = self._questions.get(digest), self._clock.monotonic()
        if question is not None and not self._backoff.is_failing:
            return question, False, None
        # One attempt at a time finds out whether an outage is over; other calls do not wait for it.
        if now < self._backoff.retry_at or (self._backoff.is_failing and self._questions):
            raise self._refused()
        question = self._questions[digest] = _Question(token, digest, principal, now + _PATIENCE)
        displaced = self._turns.join(_whose(principal), question)
        if displaced is not None:
            self.counters.overloaded += 1
            del self._questions[displaced.digest]
        if displaced is question:
            raise OverloadedError
        return question, True, displaced

    def _refused(self) -> IntrospectionUnavailableError:
        self.counters.refused += 1
        return self._unavailable(is_outage=self._is_outage)

    def _unavailable(self, *, is_outage: bool) -> IntrospectionUnavailableError:
        retry_after = max(1.0, self._backoff.retry_at - self._clock.monotonic())
        cause = self._error or "timeout"
        return IntrospectionUnavailableError(
            f"no answer from {self._endpoint.url}: {cause}", retry_after=retry_after, cause=cause, is_outage=is_outage
        )

    def _unheard(self, question: _Question) -> UnavailableError:
        """Return what it means that there is no answer, or that no call waits for it any longer."""
        if question.is_outage is not None:
            return self._unavailable(is_outage=question.is_outage)
        if question.asked_at is None:
            return OverloadedError()
        # Not the time for which the call has waited: some of that may have been for its turn, and it may have ended
        # because the caller wanted it to.
        return self._unavailable(is_outage=self._clock.monotonic() - question.asked_at.monotonic >= _PATIENCE)

    def _take_turns(self) -> None:
        """Ask whatever question's turn it is."""
        while (question := self._next()) is not None:
            try:
                if question.asked_at is None:
                    question.answer.set_result(None)
                else:
                    self._launch(question, question.asked_at)
            finally:
                self._is_asking = False

    def _next(self) -> _Question | None:
        """Return whose turn it is: to be asked, or if it comes too late, to be told so."""
        with self._lock:
            # An answer that is there at once comes here again: it is left to the loop, whose stack would grow.
            question = None if self._is_asking else self._turns.next()
            if question is None:
                return None
            self._is_asking = True
            now = self._clock.now()
            if now.monotonic >= question.given_up_at:
                self._turns.leave()
                self.counters.overloaded += 1
                del self._questions[question.digest]
            else:
                # Numbered when it is asked: a call that began to wait before that has the issuer's word of now.
                self._begun += 1
                question.number, question.asked_at = self._begun, now
                self.counters.requests += 1
            return question

    def _launch(self, question: _Question, started: Moment) -> None:
        asked = {"token": question.token, "token_type_hint": "access_token"}
        form, headers = authenticated(asked, self._auth_method, self._client_id, self._client_secret)
        response = self._endpoint.fetch("POST", form=form, headers=headers)
        response.add_done_callback(lambda done: self._finish(question, done, started))

    def _finish(self, question: _Question, response: "Future[HttpResponse]", started: Moment) -> None:
        status = _status(response, question.principal)
        word, unasked = None, list[_Question]()
        with self._lock:
            # A forked child has questions of its own.
            if self._questions.get(question.digest) is question:
                del self._questions[question.digest]
                self._turns.leave()
                if status.is_active is None:
                    unasked = self._turns.dismiss()
            if status.is_active is None:
                self._fail(question, unasked, status, started)
            else:
                self.counters.active += status.is_active
                self.counters.inactive += not status.is_active
                self._backoff.succeeded()
                self._error = ""
                # What the issuer says may be true only since before it said it.
                lasts = ACTIVE_SECONDS if status.is_active else INACTIVE_SECONDS
                word = self._words[question.digest] = _Word(status.is_active, started, lasts)
        if status.error:
            level = telemetry.ERROR if status.is_ours else telemetry.WARNING
            telemetry.event(level, "introspection_failed", endpoint=self._endpoint.url, error=status.error)
        question.answer.set_result(word)
        for other in unasked:
            other.answer.set_result(None)
        self._take_turns()

    def _fail(self, question: _Question, unasked: list[_Question], status: TokenStatus, started: Moment) -> None:
        self.counters.failures += 1
        self.causes[causes.label(status.error)] += 1
        self._error = status.error
        # Those under way together fail together: that is one failure, not sixteen. And if the issuer has answered
        # any of them, were it to ask for patience, it is no outage.
        is_outage = status.is_outage and (self._is_outage or started.monotonic >= self._backoff.retry_at)
        self._backoff.failed(self._clock.monotonic(), at_least=status.pause, began=started.monotonic)
        self._is_outage = question.is_outage = is_outage
        # Those that wait for their turn are refused, as calls that come now are.
        for other in unasked:
            del self._questions[other.digest]
            self.counters.refused += 1
            other.is_outage = is_outage


def _whose(principal: Principal) -> Hashable:
    return principal.issuer, principal.org_id


def _status(response: "Future[HttpResponse]", principal: Principal) -> TokenStatus:
    try:
        return read_status(response.result(), principal)
    except TransportError as failure:
        return TokenStatus(None, failure.reason, is_outage=failure.is_outage)
    except CancelledError:
        return TokenStatus(None, "closed")
    except Exception as failure:  # noqa: BLE001 - those that wait must learn that it ended
        telemetry.unforeseen("introspection", failure)
        return TokenStatus(None, "unforeseen")
