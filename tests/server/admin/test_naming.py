"""An application has its own name on the page, and never that of another one of the same id."""

from collections.abc import Iterator
from typing import Any

import pytest

from authz.judge.orders.operator import Operator
from authz.judge.orders.standing import Standing
from authz.judge.streams import OpenStreams
from authz.runtime.clock import SYSTEM_CLOCK
from authz.runtime.network.transport import Transport
from authz.server.admin.naming import with_applications
from authz.server.shared_orders import SharedOrders
from authz.server.workos.applications import Application
from authz.server.workos.applications_api import ApplicationsApi
from authz.server.workos.listing import WorkOSApplications
from authz.server.workos.register import RegisterHere

ISSUER = "https://acme.authkit.app"
CALLED = {"name": "Tills", "description": "Takes money"}


@pytest.fixture
def shared() -> Iterator[SharedOrders]:
    """Return what knows two applications, one of an organization and one of none."""
    operator = Operator(Standing(), OpenStreams(), clock=SYSTEM_CLOCK)
    api = ApplicationsApi("sk_test", "https://api.example", Transport())
    shared = SharedOrders(operator, None, None, stale=60)
    shared.applications = WorkOSApplications(api, RegisterHere(operator), leads=lambda: False, issuer=ISSUER)
    shared.applications.known = {
        "client_1": Application("client_1", "conn_app_1", "org_1", **CALLED),
        "client_2": Application("client_2", "conn_app_2", "", **CALLED),
    }
    yield shared
    api.close()


def overview(*clients: str, org_id: str = "org_1", **order: Any) -> dict[str, Any]:
    told = {"kind": "client", "id": "client_1", "issuer": "", **order}
    return {"organizations": [{"id": org_id, "clients": dict.fromkeys(clients, 1)}], "orders": [told]}


def test_application_of_an_organization_has_its_name_there_and_nowhere_else(shared: SharedOrders) -> None:
    clients = ("client_1", "client_2", "client_3")
    there, elsewhere = (
        with_applications(overview(*clients, org_id=org_id), shared)["organizations"][0]["applications"]
        for org_id in ("org_1", "org_2")
    )

    assert there == {"client_1": CALLED, "client_2": CALLED}
    assert elsewhere == {"client_2": CALLED}


@pytest.mark.parametrize(
    ("order", "called"),
    [
        ({}, CALLED),
        ({"issuer": ISSUER}, CALLED),
        ({"issuer": "https://other.example"}, {}),
        ({"id": "client_3"}, {}),
        ({"kind": "organization"}, {}),
    ],
)
def test_order_has_the_name_of_the_application_that_it_is_about(
    shared: SharedOrders, order: dict[str, str], called: dict[str, str]
) -> None:
    assert with_applications(overview(**order), shared)["orders"][0]["application"] == called


def test_without_a_list_the_overview_stays_as_it_is(shared: SharedOrders) -> None:
    shared.applications = None

    for nothing in (None, shared):
        assert with_applications(overview("client_1"), nothing) == overview("client_1")
