"""Tokens for calling others: OAuth 2.0 ``client_credentials`` (RFC 6749 section 4.4), fetched ahead of need."""

import base64
import math
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol
from urllib.parse import quote_plus

from authz import fork, telemetry, variables
from authz.backoff import JITTER, Backoff, uniform
from authz.clock import SYSTEM_CLOCK, Clock, Moment
from authz.encoding import EncodingError, base64url_decode, json_object
from authz.errors import AuthzError, ConfigError, TokenEndpointError
from authz.flow import Flow, Wait, arun, run
from authz.secret import read_secret
from authz.transport import HttpResponse, Transport, TransportError, check_issuer_url, check_url

AuthMethod = Literal["client_secret_post", "client_secret_basic"]

_OK = 200
_PATIENCE = 10.0
_REFRESH_SECONDS, _REFRESH_SHARE = 60.0, 0.1
# A token that expires on its way is of no use.
_TRAVEL_SECONDS = 5.0
_UNSAID_LIFETIME = 60.0
_PERMANENT_PAUSE = 30.0
_LONGEST_PAUSE = 3600.0
_TRANSIENT = frozenset((408, 425, 429))
_INVALIDATIONS, _INVALIDATION_WINDOW = 2, 30.0

_VARIABLES = ("issuer", *variables.CLIENT)

_TOKEN = re.compile(r"[!-~]{1,16384}", re.ASCII)
_ERROR_CODE = re.compile(r"[a-z_]{1,64}", re.ASCII)


class TokenSource(Protocol):
    """Whatever has access tokens to give: :class:`ClientCredentials`, or a class of your own."""

    def token_flow(self) -> Flow[str]:
        """Return an access token, as a flow."""

    def invalidate(self, token: str) -> None:
        """Note that a server has refused ``token``: there may be a better one."""


def replace_token(source: TokenSource, refused: str) -> Flow[str | None]:
    """Return another token than the one that a server ``refused``, or ``None`` where there is none to be had."""
    try:
        source.invalidate(refused)
        token = yield from source.token_flow()
    except AuthzError:
        return None
    except Exception as error:  # noqa: BLE001 - whoever asks has an answer already, the refusal
        telemetry.unforeseen("token source", error)
        return None
    return token if token != refused else None


class _Token(NamedTuple):
    text: str
    refresh_at: Moment
    expires_at: Moment


class _RefusedError(Exception):
    """The endpoint's answer, in words that may be logged; a permanent one will not change by asking again."""

    def __init__(self, why: str, *, permanent: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.permanent, self.retry_after = permanent, retry_after


class ClientCredentials:
    """A source of access tokens for one M2M application.

    A token is fetched when first asked for and again, in the background, at
    the larger of 60 s and 10 % of its life before it expires; until then, and
    while the endpoint fails, the old one serves.
    One object serves any number of threads and event loops.

    Args:
        issuer: the AuthKit domain; the endpoint is ``{issuer}/oauth2/token``.
        token_url: the endpoint itself, instead.
        client_id: the application.
        client_secret: its secret; never logged, never part of a ``repr`` or an error.
        client_secret_file: a file that holds it, instead; read for each request, so that a new secret
            needs no restart.
        scope: the scopes to ask for, space-separated or several; by default whatever the application has.
        auth_method: ``client_secret_post`` or ``client_secret_basic`` (RFC 6749 section 2.3.1).
        transport: how the endpoint is asked; by default one of its own.
        clock: where the time comes from; a token ages by whichever of its two clocks runs further.
        jitter: returns a number between -1 and 1, so that many clients do not refresh at once.

    Raises:
        ConfigError: an argument that cannot work; the message names it.

    """

    def __init__(
        self,
        issuer: str | None = None,
        *,
        client_id: str,
        client_secret: str | None = None,
        client_secret_file: str | Path | None = None,
        token_url: str | None = None,
        scope: str | Iterable[str] | None = None,
        auth_method: AuthMethod = "client_secret_post",
        transport: Transport | None = None,
        clock: Clock = SYSTEM_CLOCK,
        jitter: Callable[[], float] = uniform,
    ) -> None:
        if (issuer is None) == (token_url is None):
            raise ConfigError("issuer and token_url: give one of them")
        if not client_id:
            raise ConfigError("client_id: must not be empty")
        if (client_secret is None) == (client_secret_file is None):
            raise ConfigError("client_secret and client_secret_file: give one of them")
        if client_secret is not None and not client_secret:
            raise ConfigError("client_secret: must not be empty")
        if auth_method not in ("client_secret_post", "client_secret_basic"):
            raise ConfigError(f"auth_method: {auth_method!a} must be client_secret_post or client_secret_basic")
        if token_url is not None:
            self._url = check_url(token_url, "token_url")
        else:
            self._url = check_issuer_url(str(issuer)).rstrip("/") + "/oauth2/token"
        self.client_id = client_id
        self._form = {"grant_type": "client_credentials"}
        if scope is not None:
            self._form["scope"] = scope if isinstance(scope, str) else " ".join(scope)
            if not self._form["scope"].strip():
                # An issuer takes none for all.
                raise ConfigError("scope: must not be empty; leave it out for all that the application may have")
        self._auth_method = auth_method
        self._client_secret, self._client_secret_file = client_secret, client_secret_file
        self._secret()
        self._transport = transport or Transport()
        self._clock = clock
        self._jitter = jitter
        self._backoff = Backoff(jitter)
        self._token: _Token | None = None
        self._refused: _RefusedError | None = None
        self._refused_secret: str | None = None
        self._invalidated: deque[float] = deque(maxlen=_INVALIDATIONS)
        self.after_fork()
        fork.register(self)

    @classmethod
    def from_env(cls, *, transport: Transport | None = None) -> "ClientCredentials":
        """Build a source from ``AUTHZ_*`` variables, and from the file that ``AUTHZ_ENV_FILE`` names, if any.

        They are ``AUTHZ_TOKEN_URL`` or else ``AUTHZ_ISSUER``, ``AUTHZ_CLIENT_ID``, ``AUTHZ_CLIENT_SECRET_FILE``
        or else ``AUTHZ_CLIENT_SECRET``, and ``AUTHZ_SCOPE``.

        Args:
            transport: how the endpoint is asked; by default one of its own.

        Raises:
            ConfigError: a variable is missing or wrong; the message names it.

        """
        found = variables.values(_VARIABLES)
        token_url, file = found.get("token_url"), found.get("client_secret_file")
        return cls(
            _needed(found, "issuer", "or AUTHZ_TOKEN_URL") if token_url is None else None,
            token_url=token_url,
            client_id=_needed(found, "client_id"),
            client_secret=_needed(found, "client_secret", "or AUTHZ_CLIENT_SECRET_FILE") if file is None else None,
            client_secret_file=file,
            scope=found.get("scope"),
            transport=transport,
        )

    def __repr__(self) -> str:
        """Name the application and the endpoint, nothing else."""
        return f"{type(self).__name__}(token_url={self._url!r}, client_id={self.client_id!r})"

    def token(self) -> str:
        """Return an access token; blocks while the first one is fetched.

        Raises:
            TokenEndpointError: none can be had; the message says why.

        """
        return run(self.token_flow())

    async def atoken(self) -> str:
        """Return an access token; see :meth:`token`."""
        return await arun(self.token_flow())

    def token_flow(self) -> Flow[str]:
        """Return an access token, as a flow; see :meth:`token`."""
        token, pending = self._usable()
        if token is not None:
            return token
        try:
            yield Wait(pending, _PATIENCE)
        except (TimeoutError, CancelledError):
            raise TokenEndpointError("the token endpoint did not answer in time") from None
        with self._lock:
            if self._token is not None and not self._clock.has_reached(self._token.expires_at):
                return self._token.text
            raise self._unavailable()

    def invalidate(self, token: str) -> None:
        """Drop ``token``, which a server has refused, unless another has replaced it already.

        The next call fetches another. Only two tokens are dropped within 30 s: a server that
        refuses them all must not have us ask the endpoint for every call.

        Args:
            token: the token that was refused.

        """
        with self._lock:
            if self._token is None or self._token.text != token:
                return
            now = self._clock.monotonic()
            if len(self._invalidated) < _INVALIDATIONS or now - self._invalidated[0] >= _INVALIDATION_WINDOW:
                self._invalidated.append(now)
                self._token = None

    def close(self) -> None:
        """Stop fetching."""
        self._transport.close()

    def after_fork(self) -> None:
        """Forget the fetch under way, which is the parent's."""
        self._lock = threading.Lock()
        self._pending: Future[None] | None = None

    def _usable(self) -> tuple[str | None, "Future[None]"]:
        with self._lock:
            now = self._clock.now()
            token = self._token
            text = token.text if token is not None and not now.has_reached(token.expires_at) else None
            if token is not None and text is not None and not now.has_reached(token.refresh_at):
                return text, _NOTHING
            if self._pending is not None:
                return text, self._pending
            if now.monotonic < self._backoff.retry_at and not self._has_another_secret():
                if text is not None:
                    return text, _NOTHING
                raise self._unavailable()
            pending = self._pending = Future()
        self._launch(pending, now)
        return text, pending

    def _has_another_secret(self) -> bool:
        if self._refused_secret is None:
            return False
        try:
            return self._secret() != self._refused_secret
        except ConfigError:
            return False

    def _unavailable(self) -> TokenEndpointError:
        retry_after = max(1.0, self._backoff.retry_at - self._clock.monotonic())
        why = self._refused or _RefusedError("it gave one that has expired")
        msg = f"no token from {self._url}: {why}"
        return TokenEndpointError(msg, retry_after=retry_after, is_permanent=why.permanent)

    def _launch(self, pending: "Future[None]", started: Moment) -> None:
        try:
            secret = self._secret()
        except ConfigError as error:
            unreadable: Future[HttpResponse] = Future()
            unreadable.set_exception(_RefusedError(str(error)))
            self._finish(pending, unreadable, started, None)
            return
        form, headers = self._request(secret)
        response = self._transport.fetch("POST", self._url, form=form, headers=headers)
        response.add_done_callback(lambda done: self._finish(pending, done, started, secret))

    def _request(self, secret: str) -> tuple[dict[str, str], dict[str, str]]:
        if self._auth_method == "client_secret_post":
            return {**self._form, "client_id": self.client_id, "client_secret": secret}, {}
        # RFC 6749 section 2.3.1: form-encoded first, then Basic.
        pair = f"{quote_plus(self.client_id)}:{quote_plus(secret)}"
        return self._form, {"authorization": "Basic " + base64.b64encode(pair.encode()).decode()}

    def _secret(self) -> str:
        if self._client_secret_file is None:
            return str(self._client_secret)
        secret = read_secret(self._client_secret_file, "client_secret_file")
        if not secret:
            raise ConfigError(f"client_secret_file: {str(self._client_secret_file)!a} is empty")
        return secret

    def _finish(
        self, pending: "Future[None]", response: "Future[HttpResponse]", started: Moment, secret: str | None
    ) -> None:
        token, refused = None, _RefusedError("unforeseen")
        try:
            token = self._read(response.result(), started)
        except TransportError as error:
            refused = _RefusedError(error.reason)
        except CancelledError:
            refused = _RefusedError("closed")
        except _RefusedError as error:
            refused = error
        except Exception as error:  # noqa: BLE001 - whoever waits must learn that it ended
            telemetry.unforeseen("token endpoint", error)
        with self._lock:
            if self._pending is pending:
                self._pending = None
            if token is not None:
                self._token, self._refused, self._refused_secret = token, None, None
                self._backoff.succeeded()
            else:
                self._refused = refused
                self._refused_secret = secret if refused.permanent else None
                if refused.permanent:
                    self._token = None
                pause = max(refused.retry_after, _PERMANENT_PAUSE if refused.permanent else 0.0)
                self._backoff.failed(self._clock.monotonic(), at_least=pause)
        if token is None:
            telemetry.event(telemetry.WARNING, "token_fetch_failed", url=self._url, error=str(refused))
        pending.set_result(None)

    def _read(self, response: HttpResponse, started: Moment) -> _Token:
        if response.status != _OK:
            raise _refused(response)
        try:
            answer = json_object(response.body)
        except EncodingError as error:
            raise _RefusedError("the answer is not JSON") from error
        text, kind = answer.get("access_token"), answer.get("token_type")
        if not isinstance(text, str) or not _TOKEN.fullmatch(text):
            raise _RefusedError("the answer holds no access token")
        if not isinstance(kind, str) or kind.lower() != "bearer":
            # RFC 6749 section 7.1: a client must not use a token of a kind that it does not know.
            raise _RefusedError("the token is not a bearer token")
        lifetime = self._lifetime(answer, text)
        ahead = min(max(_REFRESH_SECONDS, _REFRESH_SHARE * lifetime), lifetime / 2)
        return _Token(
            text=text,
            refresh_at=started.after(lifetime - ahead * (1 + JITTER * self._jitter())),
            expires_at=started.after(lifetime - min(_TRAVEL_SECONDS, _REFRESH_SHARE * lifetime)),
        )

    def _lifetime(self, answer: dict[str, Any], text: str) -> float:
        lifetime = answer.get("expires_in")
        if lifetime is None:
            expires_at = _expiry(text)
            lifetime = expires_at - self._clock.time() if expires_at else _UNSAID_LIFETIME
        if type(lifetime) not in (int, float) or not math.isfinite(lifetime) or lifetime <= 0:
            raise _RefusedError("expires_in is not a number of seconds")
        return float(lifetime)


_NOTHING: "Future[None]" = Future()


def _needed(found: Mapping[str, str], name: str, alternative: str = "") -> str:
    if name not in found:
        raise ConfigError(" ".join([f"{name}: missing; set AUTHZ_{name.upper()}", alternative]).strip())
    return found[name]


def _refused(response: HttpResponse) -> _RefusedError:
    why = f"HTTP status {response.status}"
    try:
        code = json_object(response.body).get("error")
    except EncodingError:
        code = None
    if isinstance(code, str) and _ERROR_CODE.fullmatch(code):
        why += f", {code}"
    client_error, server_error = 400, 500
    permanent = client_error <= response.status < server_error and response.status not in _TRANSIENT
    return _RefusedError(why, permanent=permanent, retry_after=min(response.retry_after, _LONGEST_PAUSE))


def _expiry(token: str) -> float:
    # Not trusted for anything but when to fetch the next one.
    try:
        expires_at = json_object(base64url_decode(token.split(".")[1])).get("exp")
    except (EncodingError, IndexError):
        return 0.0
    return float(expires_at) if isinstance(expires_at, int | float) else 0.0
