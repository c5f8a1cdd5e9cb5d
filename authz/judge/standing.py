"""What the operator has ordered in this process: to refuse tokens, applications, organizations or keys."""

from collections.abc import Callable, Collection, MutableMapping

from cachetools import TLRUCache

from authz.call.principal import Principal
from authz.errors import ConfigError, TokenInactiveError, suspended
from authz.runtime import fork
from authz.runtime.clock import SYSTEM_CLOCK, Clock

MAX_TOKENS = 100_000
TOKEN_SECONDS = 86_400.0
"""How long a revoked token is remembered: longer than any token of this kind lives."""

# The issuers that an order is about, since two issuers may use one name; None stands for every issuer.
_Issuers = frozenset[str | None]
_NONE: _Issuers = frozenset()


class Standing:
    """Two deny-lists by identity: what is revoked, and which organizations are suspended.

    A token is listed by its ``jti``, never by its text: one signature may be written in several ways.
    Tokens stay listed for a day, everything else until :meth:`reinstate` or :meth:`resume`.

    Args:
        clock: only its ``monotonic`` is read.
        issuers: the issuers that an order may name; ``None`` for any.

    Attributes:
        suspended_organizations: the ids of those that :meth:`suspend` has suspended.

    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK, issuers: Collection[str] | None = None) -> None:
        self._issuers = issuers
        self._clients: dict[str, _Issuers] = {}
        self._organizations: dict[str, _Issuers] = {}
        self._keys: dict[str, _Issuers] = {}
        self._has_tokens = False
        until: Callable[[str, object, float], float] = lambda _token_id, _issuers, now: now + TOKEN_SECONDS  # noqa: E731
        self._tokens: TLRUCache[str, _Issuers] = TLRUCache(MAX_TOKENS, ttu=until, timer=clock.monotonic)
        self.suspended_organizations: frozenset[str] = frozenset()
        self._lock = fork.Lock()

    def revoke(self, *, issuer: str | None = None, **what: str | None) -> None:
        """Refuse every call of a token, an application, an organization or a key; see :meth:`authz.Authorizer.revoke`.

        Args:
            issuer: the one that has named it so; ``None`` for what any issuer has.
            what: one of ``token_id``, ``client_id``, ``org_id`` and ``key_id``.

        """
        name, revoked = self._named(issuer, what)
        with self._lock:
            revoked[name] = revoked.get(name, _NONE) | {issuer}
            self._has_tokens = self._has_tokens or revoked is self._tokens

    def reinstate(self, *, issuer: str | None = None, **what: str | None) -> None:
        """Take back what :meth:`revoke` did: for one issuer only, or all orders about that name."""
        name, revoked = self._named(issuer, what)
        with self._lock:
            left = _NONE if issuer is None else revoked.get(name, _NONE) - {issuer}
            if left:
                revoked[name] = left
            else:
                revoked.pop(name, None)

    def suspend(self, org_id: str) -> None:
        """Refuse every call of an organization; see :meth:`authz.Authorizer.suspend`."""
        _check_id(org_id, "suspend")
        with self._lock:
            self.suspended_organizations |= {org_id}

    def resume(self, org_id: str) -> None:
        """Take back what :meth:`suspend` did."""
        _check_id(org_id, "resume")
        with self._lock:
            self.suspended_organizations -= {org_id}

    @property
    def revoked_clients(self) -> frozenset[str]:
        """The ids of the applications that are revoked, of any issuer."""
        with self._lock:
            return frozenset(self._clients)

    def check(self, principal: Principal) -> None:
        """Check that the operator has neither revoked nor suspended anything of ``principal``.

        Raises:
            TokenInactiveError: its token, application, organization or key is revoked.
            PermissionDeniedError: its organization is suspended.

        """
        if self.is_revoked(principal):
            raise TokenInactiveError
        if principal.org_id in self.suspended_organizations:
            raise suspended()

    def is_revoked(self, principal: Principal) -> bool:
        """Say whether the token, the application, the organization or the key of ``principal`` is revoked."""
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

    def is_suspended(self, principal: Principal) -> bool:
        """Say whether the organization of ``principal`` is suspended."""
        return principal.org_id in self.suspended_organizations

    def _named(self, issuer: str | None, what: dict[str, str | None]) -> tuple[str, MutableMapping[str, _Issuers]]:
        """Return the one name that is given, and the list that it is for."""
        if issuer is not None and self._issuers is not None and issuer not in self._issuers:
            raise ConfigError(f"issuer: {issuer!a} is none of those whose tokens are taken here")
        lists: dict[str, MutableMapping[str, _Issuers]] = {
            "token_id": self._tokens,
            "client_id": self._clients,
            "org_id": self._organizations,
            "key_id": self._keys,
        }
        given = {kind: name for kind, name in what.items() if name is not None}
        if len(given) != 1 or "" in given.values() or not given.keys() <= lists.keys():
            raise ConfigError("revoke and reinstate: give one of token_id, client_id, org_id and key_id")
        if issuer == "":
            raise ConfigError("revoke and reinstate: issuer is empty; leave it out for every issuer")
        [(kind, name)] = given.items()
        return name, lists[kind]


def _is_meant(issuers: _Issuers | None, issuer: str) -> bool:
    return issuers is not None and (None in issuers or issuer in issuers)


def _check_id(org_id: str, order: str) -> None:
    if not org_id:
        raise ConfigError(f"{order}: org_id is empty; give the id of an organization")
