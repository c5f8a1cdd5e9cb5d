"""The development issuer without HTTP: its keys, its clients, their tokens, and revocations.

:mod:`authz.demo.issuer.http` serves it. Claims and header are those that WorkOS
documents for M2M applications of Connect.
"""

import enum
import hmac
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from authz.demo.issuer.directory import Application, Directory, load_directory
from authz.demo.issuer.environment import Environment
from authz.demo.issuer.signing import SigningKey, overlay
from authz.demo.issuer.ulid import new_ulid
from authz.errors import ConfigError

TOKEN_LIFETIME = 300
"""Seconds from ``iat`` to ``exp``, as in WorkOS's samples."""

# What WorkOS answers about a token; it does not include the scope.
_INTROSPECTED = ("client_id", "iss", "aud", "sub", "org_id", "sid", "jti", "exp", "iat")

_ORIGIN = re.compile(r"https?://([0-9A-Za-z.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", re.ASCII)


class OAuthCode(enum.StrEnum):
    """The errors of a token endpoint (RFC 6749 section 5.2)."""

    INVALID_REQUEST = "invalid_request"
    INVALID_CLIENT = "invalid_client"
    UNAUTHORIZED_CLIENT = "unauthorized_client"
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
    INVALID_SCOPE = "invalid_scope"


class OAuthError(Exception):
    """A refusal, with one sentence for the client's developer, and its HTTP status."""

    def __init__(self, code: OAuthCode, description: str, *, status: int = 400) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.status = status


class Issuer:
    """A WorkOS Connect for development, without its HTTP: keys, clients, tokens, revocations.

    Safe to share between threads.

    Args:
        url: the issuer, ``iss`` of every token: scheme, host and port, without path or slash at the end.
            By default the URL of the first server that serves it.
        directory: its organizations and applications; the built-in ones by default.
        keys: the first signs, all are published; a new RSA key by default.
        clock: POSIX time in seconds.
        on_rotate: called with the new keys before they are used.

    Attributes:
        environment: its organizations and applications, which may change.

    Raises:
        ConfigError: ``url`` cannot be an issuer.

    """

    def __init__(
        self,
        url: str | None = None,
        *,
        directory: Directory | None = None,
        keys: Sequence[SigningKey] = (),
        clock: Callable[[], float] = time.time,
        on_rotate: Callable[[Sequence[SigningKey]], None] = lambda _keys: None,
    ) -> None:
        self._url = _checked(url) if url is not None else None
        self.environment = Environment(directory or load_directory(), clock=clock)
        self._keys = tuple(keys) or (_new_key(),)
        self._clock = clock
        self._on_rotate = on_rotate
        self._lock = threading.Lock()
        self._revoked_tokens: set[str] = set()
        self._revoked_clients: set[str] = set()

    @property
    def url(self) -> str:
        """The issuer, as tokens and metadata name it."""
        if self._url is None:
            raise RuntimeError("this issuer has no URL before a server serves it")
        return self._url

    @property
    def directory(self) -> Directory:
        """Its organizations and applications as they are now."""
        return self.environment.directory

    @property
    def keys(self) -> tuple[SigningKey, ...]:
        """Every published key; the first one signs."""
        with self._lock:
            return self._keys

    def served_at(self, url: str) -> None:
        """Make ``url`` the issuer if none was given."""
        with self._lock:
            self._url = self._url or _checked(url)

    def jwks(self) -> dict[str, Any]:
        """Return the public key set (RFC 7517 section 5)."""
        return {"keys": [key.public_jwk() for key in self.keys]}

    def authenticate(self, client_id: str, client_secret: str) -> Application:
        """Return the application with this id and secret.

        Raises:
            OAuthError: ``invalid_client``: the id is unknown, the secret wrong, or the application revoked.

        """
        application = self.directory.application(client_id)
        # Compared for an unknown client too, so that timing does not reveal which ids exist.
        expected = application.client_secret if application else secrets.token_urlsafe()
        matches = hmac.compare_digest(client_secret.encode(), expected.encode())
        with self._lock:
            revoked = client_id in self._revoked_clients
        if application is None or not matches or revoked:
            raise OAuthError(
                OAuthCode.INVALID_CLIENT, "Unknown client, wrong secret, or the application was revoked.", status=401
            )
        return application

    def grant(self, application: Application, scope: str | None = None) -> tuple[str, str]:
        """Return a token by ``client_credentials`` (RFC 6749 section 4.4), and the scope that it grants.

        Raises:
            OAuthError: ``unauthorized_client`` or ``invalid_scope``.

        """
        if application.type != "m2m":
            raise OAuthError(OAuthCode.UNAUTHORIZED_CLIENT, "Only applications of type m2m may use client_credentials.")
        granted = application.scopes
        if scope is not None:
            words = scope.split(" ")
            if not set(words) <= set(application.scopes):
                raise OAuthError(OAuthCode.INVALID_SCOPE, "The application may not have all of these scopes.")
            granted = tuple(word for word in application.scopes if word in words)
        granted_scope = " ".join(granted)
        return self.mint(application.client_id, claims={"scope": granted_scope or None}), granted_scope

    def mint(
        self,
        client_id: str,
        *,
        claims: Mapping[str, Any] | None = None,
        header: Mapping[str, Any] | None = None,
        expires_in: float = TOKEN_LIFETIME,
    ) -> str:
        """Sign a token without asking whether the application may have it.

        Args:
            client_id: the application it is for.
            claims: override the usual claims; ``None`` removes one.
            header: overrides ``alg`` and ``kid`` likewise; the signature does not change.
            expires_in: seconds from now, perhaps negative; with less than the usual lifetime, the token was issued that
                much earlier.

        Raises:
            LookupError: there is no such application.

        """
        application = self.directory.application(client_id)
        if application is None:
            raise LookupError("no application of that client_id")
        now = int(self._clock())
        expires_at = int(now + expires_in)
        usual = {
            "iss": self.url,
            "aud": self.directory.audience,
            "sub": application.client_id,
            "client_id": application.client_id,
            "org_id": application.org_id,
            "scope": " ".join(application.scopes) or None,
            "jti": new_ulid(),
            "iat": min(now, expires_at - TOKEN_LIFETIME),
            "exp": expires_at,
        }
        return self.keys[0].sign(overlay(usual, claims or {}), header)

    def rotate(self, *, drop: bool = False) -> SigningKey:
        """Sign with a new key from now on, and return it.

        Args:
            drop: remove the old keys from the key set at once; otherwise they stay.

        """
        key = _new_key(self.keys[0].algorithm)
        with self._lock:
            keys = (key,) if drop else (key, *self._keys)
            self._on_rotate(keys)
            self._keys = keys
        return key

    def revoke(self, *, token: str | None = None, jti: str | None = None, client_id: str | None = None) -> str:
        """Withdraw one token, or an application with all its tokens; return the ``jti`` or client id.

        Raises:
            LookupError: the token is not ours, or there is no such application.
            TypeError: none of the three was given, or several were.

        """
        if [token, jti, client_id].count(None) != 2:  # noqa: PLR2004 - all but one of the three
            raise TypeError("give exactly one of token, jti and client_id")
        if token is not None:
            jti = (self._open(token) or {}).get("jti")
            if not isinstance(jti, str):
                raise LookupError("not a token of this issuer, or one without jti")
        if jti is not None:
            with self._lock:
                self._revoked_tokens.add(jti)
            return jti
        application = self.directory.application(client_id)
        if application is None:
            raise LookupError("no application of that client_id")
        with self._lock:
            self._revoked_clients.add(application.client_id)
        return application.client_id

    def introspect(self, token: str) -> dict[str, Any]:
        """Answer as RFC 7662 section 2.2, in WorkOS's form; a token that is not valid now is just inactive."""
        claims = self._open(token)
        if claims is None or not self._is_active(claims):
            return {"active": False}
        return {
            "active": True,
            "token_type": "access_token",
            **{name: claims[name] for name in _INTROSPECTED if name in claims},
        }

    def _open(self, token: str) -> dict[str, Any] | None:
        for key in self.keys:
            try:
                return key.open(token)
            except ValueError:
                continue
        return None

    def _is_active(self, claims: Mapping[str, Any]) -> bool:
        application = self.directory.application(claims.get("client_id"))
        expires_at, jti = claims.get("exp"), claims.get("jti")
        with self._lock:
            return (
                application is not None
                and application.client_id not in self._revoked_clients
                and claims.get("iss") == self._url
                and isinstance(expires_at, int | float)
                and expires_at > self._clock()
                and not (isinstance(jti, str) and jti in self._revoked_tokens)
            )


def _new_key(algorithm: str = "RS256") -> SigningKey:
    return SigningKey.generate(f"sso_oidc_key_pair_{new_ulid()}", algorithm)


def _checked(url: str) -> str:
    if not _ORIGIN.fullmatch(url) or urlsplit(url).hostname in ("0.0.0.0", "::"):  # noqa: S104 - refused, not bound
        raise ConfigError(
            f"issuer_url: {url!r} must be a scheme and a host that callers can reach, such as http://127.0.0.1:9190"
        )
    return url
