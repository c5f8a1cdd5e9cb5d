"""What the operator has withdrawn in this process: tokens, applications, organizations, keys."""

from collections.abc import Callable, MutableMapping

from cachetools import TLRUCache

from authz.call.principal import Principal
from authz.errors import ConfigError, TokenInactiveError
from authz.runtime import fork
from authz.runtime.clock import SYSTEM_CLOCK, Clock

MAX_TOKENS = 100_000
TOKEN_SECONDS = 86_400.0
"""How long a withdrawn token is remembered: longer than any token of this kind lives."""

# Whose name is meant, for two issuers may give one name; None stands for every issuer.
_Issuers = frozenset[str | None]
_NONE: _Issuers = frozenset()


class Revocations:
    """A deny-list by identity, never by a token's text, of which one signature may have several.

    Applications, organizations and keys stay on it until :meth:`reinstate`, tokens for a day.

    Args:
        clock: only its ``monotonic`` is read.

    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clients: dict[str, _Issuers] = {}
        self._organizations: dict[str, _Issuers] = {}
        self._keys: dict[str, _Issuers] = {}
        self._has_tokens = False
        until: Callable[[str, object, float], float] = lambda _token_id, _issuers, now: now + TOKEN_SECONDS  # noqa: E731
        self._tokens: TLRUCache[str, _Issuers] = TLRUCache(MAX_TOKENS, ttu=until, timer=clock.monotonic)
        self._lock = fork.Lock()

    def revoke(
        self,
        *,
        token_id: str | None = None,
        client_id: str | None = None,
        org_id: str | None = None,
        key_id: str | None = None,
        issuer: str | None = None,
    ) -> None:
        """Refuse, from the next call on, every call of a token (``jti``), an application, an organization or a key.

        Args:
            token_id: the token.
            client_id: the application.
            org_id: the organization.
            key_id: the key.
            issuer: whose token, application, organization or key that is; ``None`` for every issuer's of that name.

        Raises:
            ConfigError: not exactly one of the first four, or an empty one, or an empty issuer.

        """
        name, revoked = self._named(token_id, client_id, org_id, key_id, issuer)
        with self._lock:
            revoked[name] = revoked.get(name, _NONE) | {issuer}
            self._has_tokens = self._has_tokens or revoked is self._tokens

    def reinstate(
        self,
        *,
        token_id: str | None = None,
        client_id: str | None = None,
        org_id: str | None = None,
        key_id: str | None = None,
        issuer: str | None = None,
    ) -> None:
        """Take back what :meth:`revoke` did.

        Args:
            token_id: the token.
            client_id: the application.
            org_id: the organization.
            key_id: the key.
            issuer: take back the order about this one's only; ``None`` takes back all orders about that name.

        Raises:
            ConfigError: not exactly one of the first four, or an empty one, or an empty issuer.

        """
        name, revoked = self._named(token_id, client_id, org_id, key_id, issuer)
        with self._lock:
            left = _NONE if issuer is None else revoked.get(name, _NONE) - {issuer}
            if left:
                revoked[name] = left
            else:
                revoked.pop(name, None)

    @property
    def clients(self) -> frozenset[str]:
        """The applications that are refused, of whichever issuer."""
        with self._lock:
            return frozenset(self._clients)

    def check(self, principal: Principal) -> None:
        """Check that nothing about ``principal`` has been withdrawn.

        Raises:
            TokenInactiveError: something has.

        """
        if self.concerns(principal):
            raise TokenInactiveError

    def concerns(self, principal: Principal) -> bool:
        """Say whether anything about ``principal`` has been withdrawn."""
        issuer = principal.issuer
        if (
            _is_meant(self._organizations.get(principal.org_id), issuer)
            or _is_meant(self._clients.get(principal.client_id), issuer)
            or _is_meant(self._keys.get(principal.key_id), issuer)
        ):
            return True
        # Most servers have never revoked a token: they pay for no lock. Asking the cache for its length
        # would not be cheaper, for that changes the cache.
        if principal.token_id and self._has_tokens:
            with self._lock:
                return _is_meant(self._tokens.get(principal.token_id), issuer)
        return False

    def _named(
        self, token_id: str | None, client_id: str | None, org_id: str | None, key_id: str | None, issuer: str | None
    ) -> tuple[str, MutableMapping[str, _Issuers]]:
        """Return the one name that is given, and the list that it is for."""
        lists: tuple[tuple[str | None, MutableMapping[str, _Issuers]], ...] = (
            (token_id, self._tokens),
            (client_id, self._clients),
            (org_id, self._organizations),
            (key_id, self._keys),
        )
        given = [(name, revoked) for name, revoked in lists if name is not None]
        if len(given) != 1 or not given[0][0]:
            raise ConfigError("revoke and reinstate: give one of token_id, client_id, org_id and key_id")
        if issuer == "":
            raise ConfigError("revoke and reinstate: issuer is empty; leave it out for every issuer")
        return given[0]


def _is_meant(issuers: _Issuers | None, issuer: str) -> bool:
    return issuers is not None and (None in issuers or issuer in issuers)
