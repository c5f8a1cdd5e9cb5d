"""Asking the issuer whether a token is still active (RFC 7662), sparingly.

A signature says what was true when the token was issued; introspection says
what is true now. It is asked only about tokens that have passed every local
check, so garbage never makes a request.

A limit is no outage. If a question cannot be asked now because there are too
many, or because the issuer asks for a pause, the signature alone is never
believed, not even where an :class:`Assurance` says so for outages.
"""

from collections.abc import Collection, Hashable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
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
from authz.issuer.discovery import issuer_endpoint
from authz.issuer.endpoint import authenticated, check_auth_method
from authz.issuer.token_status import read_status
from authz.runtime import fork, telemetry
from authz.runtime.asking import Asking, NoAnswerError, Question
from authz.runtime.clock import SYSTEM_CLOCK, Clock, Moment
from authz.runtime.flow import Flow, Wait
from authz.runtime.network.transport import HttpResponse, Transport
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


class _Asked(NamedTuple):
    """A question with what it sends, waiting for its turn or under way."""

    question: Question[bytes, _Word]
    token: str
    principal: Principal
    given_up_at: float
    """When the call that asked first has lost patience."""


class Introspector:
    """Ask an issuer's introspection endpoint about tokens.

    Answers are remembered by a hash of the token: active ones for 30 s and not past ``exp``, inactive ones for 10 s.
    One request per token at a time, 16 in all. Others wait for their turn; organizations take turns, however many
    questions each of them has. After a failure there is a pause of 1 s, doubling to 60 s.

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
        self._asking = Asking[bytes, _Word]("introspection", clock)
        self.counters = IntrospectionCounters()
        self.causes = self._asking.causes
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
            principal: the caller that it named there; the issuer must name the same.
            assurance: how old the issuer's answer may be, and what to do without one.

        Raises:
            TokenInactiveError: the issuer says so, or names another caller.
            IntrospectionUnavailableError: the issuer cannot be asked, and ``assurance`` wants its answer.
            OverloadedError: too many questions wait; ``assurance`` does not matter then.

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
        """Start without answers, and with nothing waiting for its turn: all of that is the parent's."""
        self._words: LRUCache[bytes, _Word] = LRUCache(self._cache_size)
        self._turns = Turns[_Asked](self._max_in_flight, MAX_WAITING)
        self._is_asking = False
        # While the issuer hangs, few threads of a server's pool may wait for it.
        self._threads = Shares(self._max_in_flight)

    def _ask(self, token: str, principal: Principal, max_age: float) -> Flow[bool]:
        digest = digest_of(token)
        begun_before, after = self._asking.begun, self._clock.now().after(-max_age)
        while True:
            with self._asking.lock:
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
            # The next one was not, so this loop runs twice at most. Questions are counted: a clock may stand still.
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
        # An answer that the token is withdrawn does not age: an issuer does not bring tokens back.
        if word.is_active and (said_after.has_reached(word.said_at) or self._clock.time() >= principal.expires_at):
            return None
        self.counters.remembered += 1
        return word

    def _join_or_begin(
        self, token: str, digest: bytes, principal: Principal
    ) -> tuple[Question[bytes, _Word], bool, Question[bytes, _Word] | None]:
        """Return the question about a token, whether it is a new one, and which other one must give way to it."""
        under_way = self._asking.questions.get(digest)
        if under_way is not None and not self._asking.backoff.is_failing:
            return under_way, False, None
        # One attempt at a time finds out whether an outage is over; other calls do not wait for it.
        if not self._asking.may_ask:
            self.counters.refused += 1
            raise self._unavailable(is_outage=self._asking.was_outage)
        question = self._asking.questions[digest] = Question(digest)
        given_up_at = self._clock.monotonic() + _PATIENCE
        displaced = self._turns.join(_whose(principal), _Asked(question, token, principal, given_up_at))
        if displaced is None:
            return question, True, None
        self.counters.overloaded += 1
        self._asking.forget(displaced.question)
        if displaced.question is question:
            raise OverloadedError
        return question, True, displaced.question

    def _unavailable(self, *, is_outage: bool) -> IntrospectionUnavailableError:
        retry_after, cause = max(1.0, self._asking.pause), self._asking.error or "timeout"
        return IntrospectionUnavailableError(
            f"no answer from {self._endpoint.url}: {cause}", retry_after=retry_after, cause=cause, is_outage=is_outage
        )

    def _unheard(self, question: Question[bytes, _Word]) -> UnavailableError:
        """Return what it means that there is no answer, or that no call waits for it any longer."""
        if question.failure is not None:
            return self._unavailable(is_outage=question.failure.is_outage)
        if not question.number:
            return OverloadedError()
        # Not the time for which the call has waited: some of that may have been for its turn, and it may have ended
        # because the caller wanted it to.
        return self._unavailable(is_outage=self._clock.monotonic() - question.asked_at.monotonic >= _PATIENCE)

    def _take_turns(self) -> None:
        """Ask the questions whose turn it is."""
        while (asked := self._next()) is not None:
            try:
                if asked.question.number:
                    self._launch(asked)
                else:
                    asked.question.answer.set_result(None)
            finally:
                self._is_asking = False

    def _next(self) -> _Asked | None:
        """Return the question whose turn it is: to be asked, or if its turn comes too late, to be given up."""
        with self._asking.lock:
            # An answer that is there at once comes here again: it is left to the loop, whose stack would grow.
            asked = None if self._is_asking else self._turns.next()
            if asked is None:
                return None
            self._is_asking = True
            if self._clock.monotonic() >= asked.given_up_at:
                self._turns.leave()
                self.counters.overloaded += 1
                self._asking.forget(asked.question)
            else:
                # Numbered when it is asked: a call that began to wait before that has the issuer's word of now.
                self._asking.begin(asked.question)
                self.counters.requests += 1
            return asked

    def _launch(self, asked: _Asked) -> None:
        fields = {"token": asked.token, "token_type_hint": "access_token"}
        form, headers = authenticated(fields, self._auth_method, self._client_id, self._client_secret)
        response = self._endpoint.fetch("POST", form=form, headers=headers)
        self._asking.expect(response, partial(self._read, asked), partial(self._finish, asked.question))

    def _read(self, asked: _Asked, response: HttpResponse) -> _Word:
        status = read_status(response, asked.principal)
        if status.error:
            self._tell(telemetry.WARNING, status.error)
        # What the issuer says may be true only since before it said it.
        lasts = ACTIVE_SECONDS if status.is_active else INACTIVE_SECONDS
        return _Word(status.is_active, asked.question.asked_at, lasts)

    def _finish(self, question: Question[bytes, _Word], word: _Word | None, failure: NoAnswerError | None) -> None:
        unasked = list[_Asked]()
        with self._asking.lock:
            if failure is not None:
                self.counters.failures += 1
                # Questions under way together fail together. If the issuer has answered any of them, even if only
                # to ask for patience, it is no outage.
                is_outage = self._asking.was_outage or question.asked_at.monotonic >= self._asking.backoff.retry_at
                failure.is_outage = failure.is_outage and is_outage
            if self._asking.end(question, failure):
                self._turns.leave()
                if failure is not None:
                    unasked = self._turns.dismiss()
            # Those that wait for their turn are refused, as calls that come now are.
            for other in unasked:
                self._asking.forget(other.question)
                self.counters.refused += 1
                other.question.failure = failure
            if word is not None:
                self.counters.active += word.is_active
                self.counters.inactive += not word.is_active
                self._words[question.subject] = word
        if failure is not None:
            self._tell(telemetry.ERROR if failure.is_ours else telemetry.WARNING, str(failure))
        question.answer.set_result(word)
        for other in unasked:
            other.question.answer.set_result(None)
        self._take_turns()

    def _tell(self, level: int, error: str) -> None:
        telemetry.event(level, "introspection_failed", endpoint=self._endpoint.url, error=error)


def _whose(principal: Principal) -> Hashable:
    return principal.issuer, principal.org_id
