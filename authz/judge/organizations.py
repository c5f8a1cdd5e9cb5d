"""What is known of the organization that a caller acts for: what the policy lists, over what a directory says."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from authz.call.known import Known
from authz.call.memory import Memory
from authz.call.principal import Principal
from authz.errors import ConfigError, PermissionDeniedError
from authz.judge.orders.operator import Listings
from authz.judge.orders.order import Order
from authz.organizations.directory import Directory
from authz.organizations.organization import STRANGER
from authz.organizations.ownership import Ownership
from authz.policy import Organization, Policy
from authz.runtime.flow import Flow

Unknown = Literal["allow", "deny"]

_REMEMBERED = 10_000


class Organizations:
    """Know the tenants, groups and standing of organizations.

    Args:
        directory: is asked about them; or the directory of each issuer that has one, by issuer.
        unknown: whether organizations are admitted that the directory does not know; without one, that the policy
            does not list.
        ownership: which issuer an organization belongs to; ``None`` where that makes no difference.

    Raises:
        ConfigError: ``unknown`` is neither ``allow`` nor ``deny``, or a directory is not that of an issuer.

    """

    def __init__(
        self,
        directory: Directory | Mapping[str, Directory] | None,
        unknown: Unknown,
        ownership: Ownership | None = None,
    ) -> None:
        if unknown not in ("allow", "deny"):
            raise ConfigError(f"unknown_organizations: {unknown!a} must be allow or deny")
        self._ownership = ownership
        self._directory, self._by_issuer = _directories(directory, ownership)
        self._are_unknown_denied = unknown == "deny"
        self._overlaid = Memory[tuple[int, int], tuple[Organization, Organization, Organization]](_REMEMBERED)
        self._identified = Known[Principal](_REMEMBERED)

    @property
    def directories(self) -> tuple[Directory, ...]:
        """All that may be asked."""
        return (*self._by_issuer.values(), *([] if self._directory is None else [self._directory]))

    @property
    def are_checked(self) -> bool:
        """Whether a directory is asked, or unknown organizations are denied."""
        return bool(self.directories) or self._are_unknown_denied

    def directory_of(self, org_id: str) -> Directory | None:
        """Return the directory to ask about an organization: never that of another issuer than its own."""
        if not self._by_issuer or self._ownership is None:
            return self._directory
        owner = self._ownership.owner_of(org_id)
        return None if owner is None else self._by_issuer.get(owner)

    def renew(self, orders: Sequence[Order]) -> None:
        """Have directories ask again about the organizations that orders say to have changed."""
        if isinstance(orders, Listings):
            return
        for order in orders:
            if order.verb == "renew":
                for directory in self.directories:
                    directory.renew(order.id)

    def check(self, policy: Policy | None) -> None:
        """Check that there is a directory or a list of organizations, where unknown ones are denied.

        Raises:
            ConfigError: there is neither, so every call would be denied.

        """
        has_list = bool(self.directories) or (policy is not None and policy.organizations)
        if self._are_unknown_denied and not has_list:
            raise ConfigError(
                "unknown_organizations: deny needs a directory (workos_api_key) or a policy that lists organizations"
            )

    def find(self, org_id: str, policy: Policy | None) -> Flow[Organization]:
        """Return what is known of an organization, as a flow.

        Raises:
            PermissionDeniedError: it is unknown, and unknown organizations are denied.
            DirectoryUnavailableError: the directory does not answer, and no earlier answer is remembered: a rule may
                depend on the answer, so there is no verdict, whatever the policy lists.

        """
        directory = self.directory_of(org_id)
        if directory is None:
            return self.recall(org_id, policy)
        known = yield from directory.find(org_id)
        return self._overlay(_listed(org_id, policy), known)

    def recall(self, org_id: str, policy: Policy | None) -> Organization:
        """Return what is known of an organization, as :meth:`find` does, but without asking the directory.

        Raises:
            PermissionDeniedError: it is unknown or not remembered, and unknown organizations are denied.

        """
        listed = None if policy is None else policy.organizations.get(org_id)
        if self._directory is None and not self._by_issuer:
            # As usual, and quicker than below.
            return self._alone(listed)
        directory = self.directory_of(org_id)
        return self._overlay(listed, listed if directory is None else directory.recall(org_id))

    def _alone(self, listed: Organization | None) -> Organization:
        if listed is not None:
            return listed
        if self._are_unknown_denied:
            raise PermissionDeniedError("there is no such organization", reason="organization_unknown")
        return STRANGER

    def identify(self, principal: Principal, organization: Organization) -> Principal:
        """Return ``principal`` with the tenant of its organization; for the same caller the same object."""
        if not organization.tenant:
            return principal
        known = self._identified.of(principal)
        # The tenant of a caller may change while its token stays.
        if known is not None and known.tenant == organization.tenant:
            return known
        return self._identified.remember(principal, replace(principal, tenant=organization.tenant))

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


def _directories(
    directory: Directory | Mapping[str, Directory] | None, ownership: Ownership | None
) -> tuple[Directory | None, dict[str, Directory]]:
    """Return the directory of every organization, or the directories by issuer."""
    if ownership is None:
        if isinstance(directory, Mapping):
            raise ConfigError("directory: give one, for all issuers here name the same organizations")
        return directory, {}
    if directory is None:
        return None, {}
    if not isinstance(directory, Mapping) or not directory or not directory.keys() <= ownership.issuers:
        raise ConfigError("directory: where organizations belong to issuers give those of issuers, by issuer")
    return None, dict(directory)


def _listed(org_id: str, policy: Policy | None) -> Organization | None:
    return None if policy is None else policy.organizations.get(org_id)
