"""What organizations and applications are called, for people who know names and tenants better than ids."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from authz.judge.authorizer import Authorizer
from authz.organizations.organization import STRANGER, Organization
from authz.runtime.text.printable import printable
from authz.server.admin.backend import Json
from authz.server.admin.slices import in_slices
from authz.server.shared_orders import SharedOrders

if TYPE_CHECKING:
    from authz.server.workos.applications import Application

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


def with_applications(told: Json, shared: SharedOrders | None) -> Json:
    """Return an overview that also says what the applications in it are called, and what they are for.

    Args:
        told: an answer of :meth:`authz.server.admin.backend.Source.overview`.
        shared: what knows the applications, if anything does.

    """
    listing = None if shared is None else shared.applications
    if listing is None:
        return told
    known, issuer = listing.known, listing.issuer

    def of_organization(each: Json) -> Json:
        # Another issuer may have an application of the same id, but not in the same organization.
        found = {client: known[client] for client in each["clients"] if client in known}
        return {client: _called(one) for client, one in found.items() if one.org_id in ("", each["id"])}

    def of_order(order: Json) -> Json:
        is_ours = order["kind"] == "client" and (not issuer or order["issuer"] in ("", issuer))
        return _called(known[order["id"]]) if is_ours and order["id"] in known else {}

    return {
        **told,
        "organizations": [{**each, "applications": of_organization(each)} for each in in_slices(told["organizations"])],
        "orders": [{**order, "application": of_order(order)} for order in in_slices(told["orders"])],
    }


def _called(application: "Application") -> dict[str, str]:
    return {"name": application.name, "description": application.description}
