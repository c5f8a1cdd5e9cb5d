"""What the operator has withdrawn in this process: tokens, applications, organizations, keys."""

import threading
from collections.abc import Callable

from cachetools import TLRUCache

from authz import fork
from authz.call import Principal
from authz.clock import SYSTEM_CLOCK, Clock
from authz.errors import ConfigError, TokenInactiveError

MAX_TOKENS = 100_000
TOKEN_SECONDS = 86_400.0
"""How long a withdrawn token is remembered: longer than any token of this kind lives."""


class Revocations:
    """A deny-list by identity, never by a token's text, of which one signature may have several.

    Applications, organizations and keys stay on it until :meth:`reinstate`, tokens for a day.

    Args:
        clock: only its ``monotonic`` is read.

    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clients: frozenset[str] = frozenset()
        self._organizations: frozenset[str] = frozenset()
        self._keys: frozenset[str] = frozenset()
        self._has_tokens = False
        until: Callable[[str, None, float], float] = lambda _token_id, _value, now: now + TOKEN_SECONDS  # noqa: E731
        self._tokens: TLRUCache[str, None] = TLRUCache(MAX_TOKENS, ttu=until, timer=clock.monotonic)
        self.after_fork()
        fork.register(self)

    def revoke(
        self,
        *,
        token_id: str | None = None,
        client_id: str | None = None,
        org_id: str | None = None,
        key_id: str | None = None,
    ) -> None:
        """Refuse, from the next call on, every call of a token (``jti``), an application, an organization or a key.

        Raises:
            ConfigError: not exactly one of them, or an empty one.

        """
        self._change(token_id, client_id, org_id, key_id, is_revoked=True)

    def reinstate(
        self,
        *,
        token_id: str | None = None,
        client_id: str | None = None,
        org_id: str | None = None,
        key_id: str | None = None,
    ) -> None:
        """Take back what :meth:`revoke` did.

        Raises:
            ConfigError: not exactly one of them, or an empty one.

        """
        self._change(token_id, client_id, org_id, key_id, is_revoked=False)

    @property
    def clients(self) -> frozenset[str]:
        """The applications that are refused."""
        return self._clients

    def check(self, principal: Principal) -> None:
        """Check that nothing about ``principal`` has been withdrawn.

        Raises:
            TokenInactiveError: something has.

        """
        if self.concerns(principal):
            raise TokenInactiveError

    def concerns(self, principal: Principal) -> bool:
        """Say whether anything about ``principal`` has been withdrawn."""
        if (
            principal.org_id in self._organizations
            or principal.client_id in self._clients
            or principal.key_id in self._keys
        ):
            return True
        # Most servers have never revoked a token: they pay for no lock. Asking the cache for its length
        # would not be cheaper, for that changes the cache.
        if principal.token_id and self._has_tokens:
            with self._lock:
                return principal.token_id in self._tokens
        return False

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent may hold."""
        self._lock = threading.Lock()

    def _change(
        self, token_id: str | None, client_id: str | None, org_id: str | None, key_id: str | None, *, is_revoked: bool
    ) -> None:
        given = [value for value in (token_id, client_id, org_id, key_id) if value is not None]
        if len(given) != 1 or not given[0]:
            raise ConfigError("revoke and reinstate: give one of token_id, client_id, org_id and key_id")
        named = frozenset(given)
        with self._lock:
            if client_id is not None:
                self._clients = self._clients | named if is_revoked else self._clients - named
            elif org_id is not None:
                self._organizations = self._organizations | named if is_revoked else self._organizations - named
            elif key_id is not None:
                self._keys = self._keys | named if is_revoked else self._keys - named
            elif is_revoked:
                self._tokens[given[0]] = None
                self._has_tokens = True
            else:
                self._tokens.pop(given[0], None)
