"""What WorkOS's own client reads from the development issuer."""

import pytest
import workos

from authz.demo.issuer.directory import DEFAULT_API_KEY
from authz.demo.issuer.workos_api import MAX_LIMIT, application_id

UPDATED, DELETED = "organization.updated", "organization.deleted"
BOTH = [UPDATED, DELETED]
KEY = {"authorization": f"Bearer {DEFAULT_API_KEY}"}


@pytest.fixture
def client(own_server):
    with workos.WorkOSClient(api_key=DEFAULT_API_KEY, base_url=own_server.url, max_retries=0) as client:
        yield client


def told(page):
    return [(event.event, event.data.name) for event in page.data]


def test_changes_become_events_in_their_order(client, acme, clock):
    for name in ("Acme", "Acme Rail"):
        client.organizations.update_organization(acme.org_id, name=name)
        clock.now += 1
    client.organizations.delete_organization(acme.org_id)

    oldest_first = client.events.list_events(events=BOTH, order="asc")

    assert told(oldest_first) == [(UPDATED, "Acme"), (UPDATED, "Acme Rail"), (DELETED, "Acme Rail")]
    assert told(client.events.list_events(events=BOTH)) == told(oldest_first)[::-1]
    assert [event.created_at.timestamp() for event in oldest_first.data] == [clock.now - 2, clock.now - 1, clock.now]
    assert len({event.id for event in oldest_first.data}) == 3


def test_events_are_read_on_from_one_of_them(client, acme):
    for number in range(5):
        client.organizations.update_organization(acme.org_id, name=f"Acme {number}")
    first = client.events.list_events(events=BOTH, order="asc", limit=2)
    rest = client.events.list_events(events=BOTH, order="asc", limit=3, after=first.data[-1].id)
    nothing = client.events.list_events(events=BOTH, order="asc", after=rest.data[-1].id)

    assert [event.data.name for event in (*first.data, *rest.data)] == [f"Acme {number}" for number in range(5)]
    assert (first.after, rest.after, nothing.data) == (first.data[-1].id, None, [])


def test_events_are_those_that_are_asked_for(client, acme, globex, clock):
    client.organizations.update_organization(acme.org_id, name="Acme")
    clock.now += 10
    client.organizations.update_organization(globex.org_id, external_id="tenant-2", metadata={"plan": "gold"})
    client.organizations.delete_organization(globex.org_id)

    of_one = client.events.list_events(events=BOTH, order="asc", organization_id=globex.org_id)
    since = client.events.list_events(events=BOTH, order="asc", range_start="2027-01-15T08:00:05Z")

    assert told(client.events.list_events(events=[DELETED])) == [(DELETED, "Globex Retail")]
    assert told(of_one) == told(since) == [(UPDATED, "Globex Retail"), (DELETED, "Globex Retail")]
    assert (of_one.data[0].data.external_id, of_one.data[0].data.metadata) == ("tenant-2", {"plan": "gold"})


def test_organization_that_is_deleted_takes_its_applications_with_it(client, own_server, acme):
    token = own_server.issuer.mint(acme.client_id)
    client.organizations.delete_organization(acme.org_id)

    with pytest.raises(workos.NotFoundError):
        client.organizations.get_organization(acme.org_id)
    assert acme.client_id not in {each.client_id for each in client.connect.list_applications().data}
    assert own_server.issuer.introspect(token) == {"active": False}


def test_applications_are_listed_page_by_page(client, directory):
    expected = [application.client_id for application in directory.applications]
    oldest_first = client.connect.list_applications(limit=3, order="asc")

    assert [each.client_id for each in oldest_first.auto_paging_iter()] == expected
    assert [each.client_id for each in client.connect.list_applications(limit=100).data] == expected[::-1]


def test_application_says_what_it_is(client, acme, sign_in):
    [found] = client.connect.list_applications(organization_id=acme.org_id).data
    signing_in = next(each for each in client.connect.list_applications() if each.client_id == sign_in.client_id)

    assert client.connect.get_application(found.id) == found
    assert (found.id, found.client_id, found.name) == (application_id(acme), acme.client_id, acme.name)
    assert (found.application_type, found.organization_id, found.scopes) == ("m2m", acme.org_id, list(acme.scopes))
    assert signing_in.application_type == "oauth"


def test_application_that_is_deleted_is_gone_without_an_event(client, own_server, acme):
    token = own_server.issuer.mint(acme.client_id)
    client.connect.delete_application(application_id(acme))

    assert client.connect.list_applications(organization_id=acme.org_id).data == []
    assert client.events.list_events(events=["organization.created", *BOTH]).data == []
    assert client.organizations.get_organization(acme.org_id).name == "Acme Freight"
    assert own_server.issuer.introspect(token) == {"active": False}


def test_applications_that_register_themselves_are_none_of_these(client):
    assert client.connect.list_applications(registration_types=["dynamic"]).data == []


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/events", 422, "events: name at least one."),
        ("/events?events=", 422, "events: name at least one."),
        (f"/events?events={UPDATED}&limit=0", 422, f"limit: a number from 1 to {MAX_LIMIT}."),
        (f"/events?events={UPDATED}&limit=101", 422, f"limit: a number from 1 to {MAX_LIMIT}."),
        (f"/events?events={UPDATED}&limit=%D9%A3", 422, f"limit: a number from 1 to {MAX_LIMIT}."),
        (f"/events?events={UPDATED}&order=normal", 422, "order: asc or desc."),
        (f"/events?events={UPDATED}&after=event_1", 422, "after: no event of that id."),
        (
            f"/events?events={UPDATED}&range_start=2027-01-15T08:00:05%2B00:00",
            422,
            "range_start: a time in UTC (ISO 8601) that ends with Z.",
        ),
        ("/connect/applications?after=conn_app_1", 422, "after: no application of that id."),
        ("/organizations/org_1", 404, "Organization not found: 'org_1'."),
    ],
)
def test_wrong_question_is_refused(own_http, path, status, message):
    answer = own_http.get(path, headers=KEY)

    assert (answer.status_code, answer.json()["message"]) == (status, message)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[" * 10_000, 400),
        (b"[]", 422),
        (b'{"id": "org_2"}', 422),
        (b'{"name": 1}', 422),
        (b'{"metadata": []}', 422),
        (b'{"metadata": {"plan": 1}}', 422),
        (b" " * 16_385, 413),
    ],
)
def test_wrong_change_is_refused(own_http, acme, body, status):
    answer = own_http.put(f"/organizations/{acme.org_id}", content=body, headers=KEY)

    assert answer.status_code == status
    assert own_http.get(f"/organizations/{acme.org_id}", headers=KEY).json()["name"] == "Acme Freight"


@pytest.mark.parametrize("authorization", [None, "Bearer sk_test_other", f"Basic {DEFAULT_API_KEY}", "Bearer"])
@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/events?events=organization.updated"),
        ("GET", "/connect/applications"),
        ("DELETE", "/organizations/org_01JYACME000000000000000001"),
        ("PUT", "/organizations/org_01JYACME000000000000000001"),
        ("DELETE", "/connect/applications/client_01JYACME000000000000000002"),
    ],
)
def test_every_endpoint_asks_for_the_key(own_http, own_server, verb, path, authorization):
    before = own_server.issuer.directory
    headers = {} if authorization is None else {"authorization": authorization}

    assert own_http.request(verb, path, headers=headers).status_code == 401
    assert own_server.issuer.directory is before
