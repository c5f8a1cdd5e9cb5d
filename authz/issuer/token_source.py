"""Tokens for calling others: OAuth 2.0 ``client_credentials`` (RFC 6749 section 4.4), fetched ahead of need."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from authz.errors import AuthzError, ConfigError, TokenDeniedError, TokenEndpointError
from authz.issuer.discovery import issuer_endpoint
from authz.issuer.endpoint import authenticated, check_auth_method
from authz.issuer.token_response import TokenRefusedError, read_token
from authz.runtime import telemetry
from authz.runtime.asking import Asking, NoAnswerError, Question
from authz.runtime.backoff import JITTER, uniform
from authz.runtime.clock import SYSTEM_CLOCK, Clock, Moment
from authz.runtime.configuration import read_secret
from authz.runtime.flow import Flow, Wait, arun, run
from authz.runtime.network.transport import Form, HttpResponse, Transport
from authz.settings import variables
from authz.settings.variables import AuthMethod

_PATIENCE = 10.0
_REFRESH_SECONDS, _REFRESH_SHARE = 60.0, 0.1
# A token must not expire on its way to the server.
_TRAVEL_SECONDS = 5.0
_INVALIDATIONS, _INVALIDATION_WINDOW = 2, 30.0

_VARIABLES = ("issuer", "discover", "discover_hosts", *variables.CLIENT)


class TokenSource(Protocol):
    """A source of access tokens: :class:`ClientCredentials`, or a class of your own."""

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
    except Exception as error:  # noqa: BLE001 - the caller has an answer already, the refusal
        telemetry.unforeseen("token source", error)
        return None
    return token if token != refused else None


class _Token(NamedTuple):
    text: str
    asked: Moment
    refresh_after: float
    expires_after: float


class ClientCredentials:
    """A source of access tokens for one M2M application.

    A token is fetched when first asked for and again, in the background, at
    the larger of 60 s and 10 % of its life before it expires; until then, and
    while the endpoint fails, the old one serves.
    One object serves any number of threads and event loops.

    Args:
        issuer: the AuthKit domain; the endpoint is ``{issuer}/oauth2/token``.
        token_url: the endpoint itself, instead.
        discover: look the endpoint up in the issuer's metadata (RFC 8414), when it is first needed.
        discover_hosts: hosts that it may have then, besides the issuer's own.
        client_id: the application.
        client_secret: its secret; never logged, never part of a ``repr`` or an error.
        client_secret_file: a file that holds it, instead; read for each request, so that a new secret
            needs no restart.
        scope: the scopes to ask for, space-separated or several; by default all that the application has.
        resource: the URI of what the token is for, or several (RFC 8707 section 2).
        audience: what the token is for, where the issuer wants this name for it (Auth0 does).
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
        discover: bool = False,
        discover_hosts: Collection[str] = (),
        scope: str | Iterable[str] | None = None,
        resource: str | Iterable[str] | None = None,
        audience: str | None = None,
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
        check_auth_method(auth_method)
        self._endpoint = issuer_endpoint(
            "token_endpoint",
            issuer,
            transport or Transport(),
            url=token_url,
            setting="token_url",
            discover=discover,
            discover_hosts=discover_hosts,
            clock=clock,
        )
        self.client_id = client_id
        self._form: Form = _form(scope, resource, audience)
        self._auth_method = auth_method
        self._client_secret, self._client_secret_file = client_secret, client_secret_file
        self._secret()
        self._clock = clock
        self._jitter = jitter
        self._asking = Asking[None, _Token]("token endpoint", clock, jitter)
        self._token: _Token | None = None
        self._refused_secret: str | None = None
        self._invalidated: deque[float] = deque(maxlen=_INVALIDATIONS)

    @classmethod
    def from_env(cls, *, transport: Transport | None = None) -> "ClientCredentials":
        """Build a source from ``AUTHZ_*`` variables, and from the file that ``AUTHZ_ENV_FILE`` names, if any.

        They are ``AUTHZ_TOKEN_URL`` or else ``AUTHZ_ISSUER`` (with ``AUTHZ_DISCOVER`` and ``AUTHZ_DISCOVER_HOSTS``
        if its metadata says where tokens are had), ``AUTHZ_CLIENT_ID``, ``AUTHZ_CLIENT_SECRET_FILE``
        or else ``AUTHZ_CLIENT_SECRET``, ``AUTHZ_SCOPE``, ``AUTHZ_TOKEN_RESOURCE`` (several with blanks between
        them) and ``AUTHZ_TOKEN_AUDIENCE``. ``AUTHZ_AUDIENCE``, the audience of this process itself, is not used.

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
            **(discovery_of(found) if token_url is None else {}),
            client_id=_needed(found, "client_id"),
            client_secret=_needed(found, "client_secret", "or AUTHZ_CLIENT_SECRET_FILE") if file is None else None,
            client_secret_file=file,
            scope=found.get("scope"),
            resource=found.get("token_resource", "").split() or None,
            audience=found.get("token_audience"),
            transport=transport,
        )

    def __repr__(self) -> str:
        """Name the application and the endpoint, nothing else."""
        return f"{type(self).__name__}(token_url={self._endpoint.url!r}, client_id={self.client_id!r})"

    def token(self) -> str:
        """Return an access token; blocks while the first one is fetched.

        Raises:
            TokenDeniedError: the issuer refuses this application one; the message says why.
            TokenEndpointError: none can be had now.

        """
        return run(self.token_flow())

    async def atoken(self) -> str:
        """Return an access token; see :meth:`token`."""
        return await arun(self.token_flow())

    def token_flow(self) -> Flow[str]:
        """Return an access token, as a flow; see :meth:`token`."""
        token, fetch = self._usable()
        if token is not None:
            return token
        try:
            yield Wait(fetch.answer, _PATIENCE)
        except (TimeoutError, CancelledError):
            why = "timeout (the token endpoint did not answer in time)"
            raise TokenEndpointError(f"no token from {self._endpoint.url}: {why}", cause=why) from None
        with self._asking.lock:
            if self._token is not None and self._clock.since(self._token.asked) < self._token.expires_after:
                return self._token.text
            raise self._unavailable()

    def invalidate(self, token: str) -> None:
        """Drop ``token``, which a server has refused, unless another has replaced it already.

        The next call fetches another. Only two tokens are dropped within 30 s: a server that
        refuses them all must not have us ask the endpoint for every call.

        Args:
            token: the token that was refused.

        """
        with self._asking.lock:
            if self._token is None or self._token.text != token:
                return
            now = self._clock.monotonic()
            if len(self._invalidated) < _INVALIDATIONS or now - self._invalidated[0] >= _INVALIDATION_WINDOW:
                self._invalidated.append(now)
                self._token = None

    def close(self) -> None:
        """Stop fetching."""
        self._endpoint.close()

    def _usable(self) -> "tuple[str | None, _Fetch]":
        with self._asking.lock:
            token = self._token
            age = 0.0 if token is None else self._clock.since(token.asked)
            text = token.text if token is not None and age < token.expires_after else None
            if token is not None and text is not None and age < token.refresh_after:
                return text, _NOTHING
            under_way = self._asking.questions.get(None)
            if under_way is not None:
                return text, under_way
            if not self._asking.may_ask and not self._has_another_secret():
                if text is not None:
                    return text, _NOTHING
                raise self._unavailable()
            fetch = self._asking.begin(Question(None))
        self._launch(fetch)
        return text, fetch

    def _has_another_secret(self) -> bool:
        if self._refused_secret is None:
            return False
        try:
            return self._secret() != self._refused_secret
        except ConfigError:
            return False

    def _unavailable(self) -> TokenDeniedError | TokenEndpointError:
        retry_after = max(1.0, self._asking.pause)
        why = self._asking.failure or NoAnswerError("expired (it gave one that has expired)")
        message = f"no token from {self._endpoint.url}: {why}"
        if isinstance(why, TokenRefusedError):
            return TokenDeniedError(message, retry_after=retry_after)
        return TokenEndpointError(message, retry_after=retry_after, cause=str(why))

    def _launch(self, fetch: "_Fetch") -> None:
        try:
            secret = self._secret()
        except ConfigError as error:
            self._finish(fetch, None, None, NoAnswerError(f"secret ({error})"))
            return
        form, headers = authenticated(self._form, self._auth_method, self.client_id, secret)
        response = self._endpoint.fetch("POST", form=form, headers=headers)
        self._asking.expect(response, partial(self._read, fetch), partial(self._finish, fetch, secret))

    def _secret(self) -> str:
        if self._client_secret_file is None:
            return str(self._client_secret)
        secret = read_secret(self._client_secret_file, "client_secret_file")
        if not secret:
            raise ConfigError(f"client_secret_file: {str(self._client_secret_file)!a} is empty")
        return secret

    def _finish(self, fetch: "_Fetch", secret: str | None, token: _Token | None, failure: NoAnswerError | None) -> None:
        is_refused = isinstance(failure, TokenRefusedError)
        with self._asking.lock:
            self._asking.end(fetch, failure)
            self._refused_secret = secret if is_refused else None
            if token is not None or is_refused:
                self._token = token
        if failure is not None:
            telemetry.event(telemetry.WARNING, "token_fetch_failed", url=self._endpoint.url, error=str(failure))
        fetch.answer.set_result(token)

    def _read(self, fetch: "_Fetch", response: HttpResponse) -> _Token:
        text, lifetime = read_token(response, fetch.asked_at.time)
        ahead = min(max(_REFRESH_SECONDS, _REFRESH_SHARE * lifetime), lifetime / 2)
        return _Token(
            text=text,
            asked=fetch.asked_at,
            refresh_after=lifetime - ahead * (1 + JITTER * self._jitter()),
            expires_after=lifetime - min(_TRAVEL_SECONDS, _REFRESH_SHARE * lifetime),
        )


_Fetch = Question[None, _Token]
_NOTHING: _Fetch = Question(None)


def discovery_of(found: Mapping[str, str]) -> dict[str, Any]:
    """Return what variables say of looking up the endpoint.

    Args:
        found: the variables, by the names of their settings.

    Raises:
        ConfigError: one cannot be.

    """
    hosts = [part.strip() for part in found.get("discover_hosts", "").split(",") if part.strip()]
    return {"discover": variables.boolean("discover", found.get("discover", "false")), "discover_hosts": hosts}


def _needed(found: Mapping[str, str], name: str, alternative: str = "") -> str:
    if name not in found:
        raise ConfigError(" ".join([f"{name}: missing; set AUTHZ_{name.upper()}", alternative]).strip())
    return found[name]


def _form(scope: str | Iterable[str] | None, resource: str | Iterable[str] | None, audience: str | None) -> Form:
    form: dict[str, str | list[str]] = {"grant_type": "client_credentials"}
    if scope is not None:
        form["scope"] = scope if isinstance(scope, str) else " ".join(scope)
        if not str(form["scope"]).strip():
            # An issuer would grant all scopes for none.
            raise ConfigError("scope: must not be empty; leave it out for all that the application may have")
    if resource is not None:
        form["resource"] = [_check_resource(each) for each in ((resource,) if isinstance(resource, str) else resource)]
    if audience is not None:
        if not audience:
            raise ConfigError("audience: must not be empty")
        form["audience"] = audience
    return form


def _check_resource(resource: str) -> str:
    # RFC 8707 section 2.
    try:
        is_absolute = bool(urlsplit(resource).scheme)
    except ValueError:
        is_absolute = False
    if not is_absolute or "#" in resource or any(char <= " " for char in resource):
        raise ConfigError(f"resource: {resource!a} must be an absolute URI without a fragment")
    return resource
