"""The organizations that the operator has suspended in this process, beside those that the policy suspends."""

from authz.call.principal import Principal
from authz.errors import ConfigError, suspended
from authz.runtime import fork


class Suspensions:
    """A list of organizations that may do nothing for now; they stay on it until :meth:`resume`."""

    def __init__(self) -> None:
        self.organizations: frozenset[str] = frozenset()
        """Who is suspended, by id."""
        self._lock = fork.Lock()

    def suspend(self, org_id: str) -> None:
        """Refuse every call of an organization, from the next one on.

        Raises:
            ConfigError: an empty id.

        """
        named = _named(org_id, "suspend")
        with self._lock:
            self.organizations |= named

    def resume(self, org_id: str) -> None:
        """Take back what :meth:`suspend` did.

        Raises:
            ConfigError: an empty id.

        """
        named = _named(org_id, "resume")
        with self._lock:
            self.organizations -= named

    def check(self, principal: Principal) -> None:
        """Check that the organization of ``principal`` is not suspended.

        Raises:
            PermissionDeniedError: it is.

        """
        if principal.org_id in self.organizations:
            raise suspended()

    def concerns(self, principal: Principal) -> bool:
        """Say whether the organization of ``principal`` is suspended."""
        return principal.org_id in self.organizations


def _named(org_id: str, what: str) -> frozenset[str]:
    if not org_id:
        raise ConfigError(f"{what}: org_id is empty; give the id of an organization")
    return frozenset([org_id])
