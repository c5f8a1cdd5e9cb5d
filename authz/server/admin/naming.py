"""What organizations are called, for people who know names and tenants better than ids."""

from collections.abc import Iterable

from authz.judge.authorizer import Authorizer
from authz.organizations.organization import STRANGER, Organization
from authz.runtime.text.printable import printable
from authz.server.admin.backend import Json

MAX_CHARACTERS = 120
"""How many characters of a name or a tenant the page is told."""

Names = dict[str, dict[str, str]]
"""The name and the tenant of organizations, by id, as far as each has them."""


def organization_of(authorizer: Authorizer, org_id: str) -> Organization:
    """Return what is known of an organization, without asking the directory."""
    policy, directory = authorizer.policy, authorizer.organizations.directory_of(org_id)
    listed = STRANGER if policy is None else policy.organization(org_id)
    known = None if directory is None else directory.recall(org_id)
    return listed if known is None else listed.over(known)


def names_of(organization: Organization) -> dict[str, str]:
    """Return its name and its tenant, as far as it has them: short, and every character visible."""
    told = {"name": organization.name, "tenant": organization.tenant}
    return {what: printable(text, MAX_CHARACTERS) for what, text in told.items() if text}


def names_for(authorizer: Authorizer, ids: Iterable[str]) -> Names:
    """Return what organizations are called; those that have neither name nor tenant are left out."""
    found = ((org_id, names_of(organization_of(authorizer, org_id))) for org_id in dict.fromkeys(ids) if org_id)
    return {org_id: names for org_id, names in found if names}


def ordered(told: Json) -> Iterable[str]:
    """Return the organizations that stand in an answer of :func:`authz.server.admin.orders.told_of`."""
    return [*told["suspended"], *(order["id"] for order in told["orders"] if order["kind"] == "organization")]
