"""Asking the issuer whether a token is still active (RFC 7662), sparingly.

A signature says what was true when the token was issued; introspection says
what is true now. It is asked only about tokens that have passed every local
check, so garbage never makes a request.
"""

import threading
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from cachetools import LRUCache

from authz import fork, telemetry
from authz.backoff import Backoff
from authz.call import Principal
from authz.client_authentication import AuthMethod, authenticated, check_auth_method
from authz.clock import SYSTEM_CLOCK, Clock
from authz.encoding import EncodingError, json_object
from authz.errors import ConfigError, IntrospectionUnavailableError, TokenInactiveError
from authz.flow import Flow, Wait
from authz.jws import digest_of
from authz.transport import HttpResponse, Transport, TransportError, check_issuer_url, check_url

ACTIVE_SECONDS, INACTIVE_SECONDS = 30.0, 10.0

_PATIENCE = 5.0
_OK, _UNAUTHORIZED, _TOO_MANY = 200, 401, 429
# Our own credentials are wrong: asking again does not mend them.
_CREDENTIALS_PAUSE = 30.0
_LONGEST_PAUSE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assurance:
    """How sure a method must be that a token has not been withdrawn.

    Args:
        max_age: seconds that the issuer's word may be old; 0 asks for every call. At most 30.
        if_unavailable: when the issuer cannot be asked, ``deny`` (UNAVAILABLE), or ``local``: believe the signature.

    Raises:
        ConfigError: an argument that cannot be.

    """

    max_age: float = 0.0
    if_unavailable: Literal["deny", "local"] = "deny"

    def __post_init__(self) -> None:
        """Check the arguments."""
        if not 0 <= self.max_age <= ACTIVE_SECONDS:
            raise ConfigError(f"max_age: {self.max_age!r} is not a number of seconds from 0 to {ACTIVE_SECONDS:g}")
        if self.if_unavailable not in ("deny", "local"):
            raise ConfigError(f"if_unavailable: {self.if_unavailable!a} must be deny or local")


@dataclass(slots=True)
class IntrospectionCounters:
    """What an introspector has done so far."""

    requests: int = 0
    failures: int = 0
    active: int = 0
    inactive: int = 0
    remembered: int = 0
    refused: int = 0


class _Word(NamedTuple):
    is_active: bool
    said_at: float
    until: float


@dataclass(slots=True)
class _Question:
    """One request under way, which everybody who asks about the token shares."""

    number: int
    answer: "Future[_Word | None]" = field(default_factory=Future)


class Introspector:
    """Ask an issuer's introspection endpoint about tokens.

    Answers are remembered by a hash of the token: active ones for 30 s and not past ``exp``, inactive ones for 10 s.
    One request per token at a time, 16 in all; after failures a pause of 1 s, doubling to 60 s.

    Args:
        issuer: the AuthKit domain; the endpoint is ``{issuer}/oauth2/introspection``.
        endpoint: the endpoint itself, instead.
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
        auth_method: AuthMethod = "client_secret_post",
        max_in_flight: int = 16,
        cache_size: int = 10_000,
        transport: Transport | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if (issuer is None) == (endpoint is None):
            raise ConfigError("issuer and endpoint: give one of them")
        if endpoint is not None:
            self._url = check_url(endpoint, "endpoint")
        else:
            self._url = check_issuer_url(str(issuer)).rstrip("/") + "/oauth2/introspection"
        for name, value in (("client_id", client_id), ("client_secret", client_secret)):
            if not value:
                raise ConfigError(f"{name}: must not be empty")
        check_auth_method(auth_method)
        for name, number in (("max_in_flight", max_in_flight), ("cache_size", cache_size)):
            if number < 1:
                raise ConfigError(f"{name}: {number!r} must be 1 or more")
        self._client_id, self._client_secret, self._auth_method = client_id, client_secret, auth_method
        self._max_in_flight, self._cache_size = max_in_flight, cache_size
        self._transport = transport or Transport()
        self._clock = clock
        self._backoff = Backoff()
        self._begun = 0
        self.counters = IntrospectionCounters()
        self.after_fork()
        fork.register(self)

    def __repr__(self) -> str:
        """Name the endpoint, nothing else."""
        return f"{type(self).__name__}(endpoint={self._url!r})"

    def introspect(self, token: str, principal: Principal, assurance: Assurance) -> Flow[None]:
        """Check that ``token`` has not been withdrawn, as a flow.

        Args:
            token: one that has passed the local checks.
            principal: whom it named there; the issuer must say the same.
            assurance: how old its word may be, and what if it cannot be had.

        Raises:
            TokenInactiveError: the issuer says so, or speaks of somebody else.
            IntrospectionUnavailableError: it cannot be asked, and ``assurance`` wants its word.

        """
        try:
            is_active = yield from self._ask(token, principal, assurance.max_age)
        except IntrospectionUnavailableError:
            if assurance.if_unavailable == "deny":
                raise
            return
        if not is_active:
            raise TokenInactiveError

    def close(self) -> None:
        """Stop asking."""
        self._transport.close()

    def after_fork(self) -> None:
        """Start without answers and questions, which are the parent's."""
        self._lock = threading.Lock()
        self._words: LRUCache[bytes, _Word] = LRUCache(self._cache_size)
        self._questions: dict[bytes, _Question] = {}
        # While the issuer hangs, few threads of a server's pool may wait for it.
        self._threads = threading.BoundedSemaphore(self._max_in_flight)

    def _ask(self, token: str, principal: Principal, max_age: float) -> Flow[bool]:
        digest = digest_of(token)
        begun_before, after = self._begun, self._clock.monotonic() - max_age
        while True:
            with self._lock:
                word = self._remembered(digest, principal, said_after=after)
                if word is not None:
                    return word.is_active
                question = self._questions.get(digest)
                is_ours = question is None
                if question is None:
                    question = self._begin(digest)
                elif self._backoff.is_failing:
                    # One attempt at a time finds out whether the outage is over; nobody else waits for it.
                    raise self._refused()
            if is_ours:
                self._launch(digest, question, token, principal)
            try:
                answer: _Word | None = yield Wait(question.answer, _PATIENCE, self._threads)
            except (TimeoutError, CancelledError):
                answer = None
            if answer is None:
                raise self._unavailable()
            # A question that this call only joined was asked before it, perhaps before the token was withdrawn.
            # The one after that was not: so this goes round twice at the most. Counted, for a clock may stand still.
            if is_ours or not answer.is_active or answer.said_at > after or question.number > begun_before:
                return answer.is_active

    def _remembered(self, digest: bytes, principal: Principal, *, said_after: float) -> _Word | None:
        word = self._words.get(digest)
        if word is None or self._clock.monotonic() >= word.until:
            return None
        # An answer that the token is withdrawn does not age: nobody brings tokens back.
        if word.is_active and (word.said_at <= said_after or self._clock.time() >= principal.expires_at):
            return None
        self.counters.remembered += 1
        return word

    def _begin(self, digest: bytes) -> _Question:
        at_most = 1 if self._backoff.is_failing else self._max_in_flight
        if self._clock.monotonic() < self._backoff.retry_at or len(self._questions) >= at_most:
            raise self._refused()
        self._begun += 1
        question = self._questions[digest] = _Question(self._begun)
        self.counters.requests += 1
        return question

    def _refused(self) -> IntrospectionUnavailableError:
        self.counters.refused += 1
        return self._unavailable()

    def _unavailable(self) -> IntrospectionUnavailableError:
        return IntrospectionUnavailableError(retry_after=max(1.0, self._backoff.retry_at - self._clock.monotonic()))

    def _launch(self, digest: bytes, question: _Question, token: str, principal: Principal) -> None:
        asked = {"token": token, "token_type_hint": "access_token"}
        form, headers = authenticated(asked, self._auth_method, self._client_id, self._client_secret)
        # What the issuer says may be true only since before it said it.
        started = self._clock.monotonic()
        response = self._transport.fetch("POST", self._url, form=form, headers=headers)
        response.add_done_callback(lambda done: self._finish(digest, question, done, principal, started))

    def _finish(
        self,
        digest: bytes,
        question: _Question,
        response: "Future[HttpResponse]",
        principal: Principal,
        started: float,
    ) -> None:
        is_active, error, pause = None, "", 0.0
        try:
            answer = response.result()
            is_active, error, pause = _read(answer, principal)
        except TransportError as failure:
            error = failure.reason
        except CancelledError:
            error = "closed"
        except Exception as failure:  # noqa: BLE001 - whoever waits must learn that it ended
            error = "unforeseen"
            telemetry.unforeseen("introspection", failure)
        word = None
        with self._lock:
            if self._questions.get(digest) is question:
                del self._questions[digest]
            if is_active is None:
                self.counters.failures += 1
                # Those under way together fail together: that is one failure, not sixteen.
                self._backoff.failed(self._clock.monotonic(), at_least=pause, began=started)
            else:
                self.counters.active += is_active
                self.counters.inactive += not is_active
                self._backoff.succeeded()
                word = _Word(is_active, started, started + (ACTIVE_SECONDS if is_active else INACTIVE_SECONDS))
                self._words[digest] = word
        if error:
            level = telemetry.ERROR if pause >= _CREDENTIALS_PAUSE else telemetry.WARNING
            telemetry.event(level, "introspection_failed", endpoint=self._url, error=error)
        question.answer.set_result(word)


def _read(answer: HttpResponse, principal: Principal) -> tuple[bool | None, str, float]:
    """Return whether the token is active (``None``: nobody knows), what went wrong, and how long to pause."""
    if answer.status == _UNAUTHORIZED:
        return None, "our own client credentials were refused", _CREDENTIALS_PAUSE
    if answer.status != _OK:
        pause = min(answer.retry_after, _LONGEST_PAUSE) if answer.status == _TOO_MANY else 0.0
        return None, f"HTTP status {answer.status}", pause
    try:
        said = json_object(answer.body)
    except EncodingError:
        return None, "the answer is not JSON", 0.0
    # RFC 7662 section 2.2: a boolean, required. Whatever is not true is not active.
    if said.get("active") is not True:
        return False, "", 0.0
    different = _contradiction(said, principal)
    return not different, f"the issuer speaks of another token ({different})" if different else "", 0.0


def _contradiction(said: Mapping[str, Any], principal: Principal) -> str:
    claims = principal.claims
    for name in ("iss", "sub", "org_id", "client_id", "exp", "jti"):
        if name in said and name in claims and said[name] != claims[name]:
            return name
    audience = said.get("aud", list(principal.audience))
    if not any(value in principal.audience for value in (audience if isinstance(audience, list) else [audience])):
        return "aud"
    return "token_type" if said.get("token_type") == "refresh_token" else ""
