"""What is known of the organization that a caller acts for: what the policy lists, over what a directory says."""

from dataclasses import replace
from typing import Literal

from authz.call import Principal
from authz.directory import Directory
from authz.errors import ConfigError, PermissionDeniedError
from authz.flow import Flow
from authz.policy import Organization, Policy
from authz.policy.memory import Memory
from authz.policy.organizations import STRANGER

Unknown = Literal["allow", "deny"]

_REMEMBERED = 10_000


class Organizations:
    """Say who organizations are.

    Args:
        directory: who is asked, if anybody.
        unknown: what becomes of organizations that the directory does not know; without one, that no policy lists.

    Raises:
        ConfigError: ``unknown`` is neither ``allow`` nor ``deny``.

    """

    def __init__(self, directory: Directory | None, unknown: Unknown) -> None:
        if unknown not in ("allow", "deny"):
            raise ConfigError(f"unknown_organizations: {unknown!a} must be allow or deny")
        self._directory = directory
        self._are_unknown_denied = unknown == "deny"
        self._overlaid = Memory[tuple[int, int], tuple[Organization, Organization, Organization]](_REMEMBERED)
        self._identified = Memory[int, tuple[Principal, Principal]](_REMEMBERED)

    @property
    def are_checked(self) -> bool:
        """Whether a directory is asked, or those that are unknown are denied."""
        return self._directory is not None or self._are_unknown_denied

    def check(self, policy: Policy | None) -> None:
        """Check that there is anything to know organizations by, where those that are unknown are denied.

        Raises:
            ConfigError: there is not, so everybody would be denied.

        """
        has_list = self._directory is not None or (policy is not None and policy.organizations)
        if self._are_unknown_denied and not has_list:
            raise ConfigError(
                "unknown_organizations: deny needs a directory (workos_api_key) or a policy that lists organizations"
            )

    def find(self, org_id: str, policy: Policy | None) -> Flow[Organization]:
        """Return what is known of an organization, as a flow.

        Raises:
            PermissionDeniedError: there is none of that id, and such are denied.
            DirectoryUnavailableError: the directory does not answer, and nothing is remembered of its word: a rule may
                depend on that, so nobody can decide, whatever the policy lists.

        """
        if self._directory is None:
            return self.recall(org_id, policy)
        known = yield from self._directory.find(org_id)
        return self._overlay(_listed(org_id, policy), known)

    def recall(self, org_id: str, policy: Policy | None) -> Organization:
        """Return what is known of an organization, as :meth:`find` does, but ask nobody.

        Raises:
            PermissionDeniedError: there is none of that id, or none is remembered, and such are denied.

        """
        listed = _listed(org_id, policy)
        return self._overlay(listed, listed if self._directory is None else self._directory.recall(org_id))

    def identify(self, principal: Principal, organization: Organization) -> Principal:
        """Return ``principal`` with the tenant of its organization; for the same caller the same object."""
        if not organization.tenant:
            return principal
        # By identity, which is quicker than the hash of so many fields. The entry keeps the object, and so its id.
        remembered = self._identified.get(id(principal))
        # The tenant of a caller may change while its token stays.
        if remembered is not None and remembered[1].tenant == organization.tenant:
            return remembered[1]
        identified = replace(principal, tenant=organization.tenant)
        self._identified.remember(id(principal), (principal, identified))
        return identified

    def _overlay(self, listed: Organization | None, known: Organization | None) -> Organization:
        if known is None and self._are_unknown_denied:
            raise PermissionDeniedError("there is no such organization", reason="organization_unknown")
        if known is None or listed is None or known is listed:
            return listed or known or STRANGER
        # By identity: two policies may list the same id. The entry keeps both objects, and so their ids.
        key = id(listed), id(known)
        overlaid = self._overlaid.get(key)
        if overlaid is None:
            overlaid = listed, known, listed.over(known)
            self._overlaid.remember(key, overlaid)
        return overlaid[2]


def _listed(org_id: str, policy: Policy | None) -> Organization | None:
    return None if policy is None else policy.organizations.get(org_id)
