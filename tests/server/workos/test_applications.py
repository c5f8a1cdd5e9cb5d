"""An application that WorkOS has no more is refused; nothing else that happens on the way refuses one."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from authz.demo.issuer.directory import DEFAULT_API_KEY, Application, Directory, Organization
from authz.demo.issuer.program import Issuer, IssuerServer
from authz.demo.issuer.signing import SigningKey
from authz.judge.orders.operator import Operator
from authz.judge.orders.order import Order
from authz.judge.orders.standing import Standing
from authz.judge.streams import OpenStreams
from authz.runtime.network.transport import Transport
from authz.server.workos import applications as ours
from authz.server.workos.applications_api import ApplicationsApi
from authz.server.workos.listing import Register, WorkOSApplications
from authz.server.workos.register import RegisterHere
from authz.server.workos.shared_register import SharedRegister, names_in
from authz.store.orders_store import OrdersStore
from tests.doubles import ManualClock
from tests.store.engines import Engine

INTERVAL = 300.0
LIST = "/connect/applications"


def application(number: int, org_id: str = "org_1") -> Application:
    return Application(
        client_id=f"client_{number:05d}", client_secret="s", name=f"Application {number}", org_id=org_id, scopes=()
    )


class WorkOS(IssuerServer):
    """A development issuer with an organization of so many applications, whose API may fail."""

    def __init__(self, key: SigningKey, count: int) -> None:
        organization = Organization(id="org_1", name="One", applications=tuple(map(application, range(count))))
        super().__init__(Issuer(directory=Directory(audience="client_1", organizations=(organization,)), keys=[key]))
        self.environment = self.issuer.environment
        self.trouble: Callable[[Scope], tuple[int, bytes] | None] = lambda _: None

    @property
    def lists(self) -> int:
        return self.requests[LIST]

    def delete(self, *numbers: int) -> None:
        for number in numbers:
            self.environment.delete_application(application(number).client_id)

    def _counting(self, wrapped: ASGIApp) -> ASGIApp:
        counted = super()._counting(wrapped)

        async def troubled(scope: Scope, receive: Receive, send: Send) -> None:
            trouble = self.trouble(scope)
            if trouble is None:
                await counted(scope, receive, send)
                return
            self.requests[scope["path"]] += 1
            status, body = trouble
            start: Message = {"type": "http.response.start", "status": status, "headers": []}
            await send(start)
            await send({"type": "http.response.body", "body": body})

        return troubled


class Lister:
    """One process that lists, and as much time as it needs."""

    def __init__(self, server: WorkOS, clock: ManualClock, engine: Engine | None = None, **more: Any) -> None:
        self.clock, self.leads = clock, True
        self.operator = Operator(Standing(clock=clock.clock), OpenStreams(), clock=clock.clock)
        self.store = None if engine is None else engine.store()
        register: Register = (
            RegisterHere(self.operator) if self.store is None else SharedRegister(self.store, self.operator)
        )
        self.api = ApplicationsApi(DEFAULT_API_KEY, server.url, Transport())
        self.lister = WorkOSApplications(
            self.api, register, leads=lambda: self.leads, interval=INTERVAL, clock=clock.clock, **more
        )

    def list(self, until: Callable[["Lister"], object] | None = None) -> None:
        """Let time pass until there is one more whole list, or something else."""
        before = self.lister.lists
        for _ in range(10_000):
            # Less would be lost in the rounding of a clock that counts from 1970.
            self.clock.advance(max(self.lister.work(), 1e-3))
            if until(self) if until is not None else self.lister.lists > before:
                return
        raise AssertionError(self.lister.error)

    @property
    def refused(self) -> set[str]:
        book = self.operator.book
        if self.store is not None:
            book, _ = OrdersStore(self.store).load()
        orders = [order for each in book.named("revoke", "client").values() for order in each.values()]
        return {order.id for order in orders if not order.is_lifting}

    def close(self) -> None:
        self.api.close()
        if self.store is not None:
            self.store.close()


@pytest.fixture
def server(ec_key: SigningKey) -> Iterator[WorkOS]:
    with WorkOS(ec_key, 250) as server:
        yield server


@pytest.fixture
def lister(server: WorkOS, clock: ManualClock) -> Iterator[Lister]:
    lister = Lister(server, clock)
    yield lister
    lister.close()


def fields(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [record.fields for record in caplog.records if getattr(record, "event", "") == event]  # type: ignore[attr-defined]


def clients(*numbers: int) -> set[str]:
    return {application(number).client_id for number in numbers}


def test_application_that_was_deleted_is_refused_by_the_next_list(server: WorkOS, lister: Lister) -> None:
    lister.list()
    before = lister.refused
    server.delete(7, 249)
    lister.list()

    assert (before, lister.refused) == (set(), clients(7, 249))
    [order] = lister.operator.book.about("revoke", "client", application(7).client_id).values()
    assert (order.source, order.reason) == ("workos", "application deleted in WorkOS")
    assert (lister.lister.refused, len(lister.lister.known)) == (2, 248)


def test_application_is_refused_once(server: WorkOS, lister: Lister, caplog: pytest.LogCaptureFixture) -> None:
    lister.list()
    server.delete(7)
    lister.list()
    lister.list()

    assert lister.lister.refused == 1
    assert len(fields(caplog, "revoked")) == 1


def test_names_are_known_and_renewed(server: WorkOS, lister: Lister) -> None:
    lister.list()
    before = lister.lister.known["client_00003"]
    [organization] = server.environment.directory.organizations
    changed = tuple(dataclasses.replace(each, name="Tills", description="<b>x") for each in organization.applications)
    server.environment.directory = dataclasses.replace(
        server.environment.directory, organizations=(dataclasses.replace(organization, applications=changed),)
    )
    lister.list()

    assert (before.name, before.org_id) == ("Application 3", "org_1")
    assert lister.lister.known["client_00003"][2:] == ("org_1", "Tills", "<b>x")


def test_only_what_is_news_of_the_names_is_told(server: WorkOS, clock: ManualClock) -> None:
    told: list[dict[str, str]] = []
    lister = Lister(server, clock, name=lambda names: told.append(dict(names)))
    lister.list()
    lister.list()
    server.delete(7)
    lister.list()
    lister.close()

    assert [len(names) for names in told] == [250, 1]
    assert told[1] == {"client_00007": ""}


def test_replica_that_waits_learns_the_names_once_they_are_listed(
    server: WorkOS, clock: ManualClock, engine: Engine
) -> None:
    told: dict[str, str] = {}
    follower, leader = Lister(server, clock, engine, name=told.update), Lister(server, clock, engine)
    follower.leads = False
    follower.list(lambda it: not it.lister.error)
    before = dict(told)
    leader.list()
    follower.list(lambda _: told)
    follower.close()
    leader.close()

    assert before == {}
    assert (len(told), told["client_00003"]) == (250, "Application 3")


def test_leader_that_does_not_hear_workos_knows_the_names_from_the_store(
    server: WorkOS, clock: ManualClock, engine: Engine
) -> None:
    first = Lister(server, clock, engine)
    first.list()
    first.close()
    server.trouble = lambda _: (500, b"")
    told: dict[str, str] = {}
    second = Lister(server, clock, engine, name=told.update)
    second.list(lambda it: it.lister.error)
    second.close()

    assert len(told) == len(second.lister.known) == 250


def test_names_are_read_from_the_store_as_far_as_they_are_asked_for(
    server: WorkOS, clock: ManualClock, engine: Engine
) -> None:
    lister = Lister(server, clock, engine)
    lister.list()
    store = engine.store()
    names = names_in(store, ["client_00003", "client_nobody", "client_00004"])
    store.close()
    lister.close()

    assert names == {"client_00003": "Application 3", "client_00004": "Application 4"}


@pytest.mark.parametrize("trouble", [(500, b""), (429, b"{}"), (200, b"nonsense"), (200, b'{"data": {}}')])
def test_page_that_fails_refuses_no_application(server: WorkOS, lister: Lister, trouble: tuple[int, bytes]) -> None:
    lister.list()
    server.delete(7)
    failures = iter([trouble] * 3)
    server.trouble = lambda scope: next(failures, None) if b"after" in scope["query_string"] else None
    lister.list(lambda it: it.lister.error)
    during = lister.refused
    lister.list()

    assert (during, lister.refused) == (set(), clients(7))
    assert lister.lister.error == ""


def page(*listed: Mapping[str, Any], after: str | None = None) -> tuple[int, bytes]:
    return 200, json.dumps({"data": listed, "list_metadata": {"after": after}}).encode()


def test_list_without_an_end_is_given_up(server: WorkOS, lister: Lister) -> None:
    lister.list()
    only = {"client_id": "client_00001", "id": "conn_app_00001"}
    pages = itertools.cycle([page(only, after="a"), page(only, after="b")])
    server.trouble = lambda scope: next(pages) if scope["path"] == LIST else None
    lister.list(lambda it: it.lister.error)

    assert lister.lister.error == "not applications"
    assert lister.refused == set()


def test_list_that_lacks_what_workos_still_has_refuses_no_application(server: WorkOS, lister: Lister) -> None:
    lister.list()
    only = {"client_id": "client_00001", "id": "conn_app_00001"}
    server.trouble = lambda scope: page(only) if scope["path"] == LIST else None
    lister.list()

    assert lister.refused == set()
    assert len(lister.lister.known) == 250


def test_list_of_another_environment_refuses_no_application(
    server: WorkOS, lister: Lister, caplog: pytest.LogCaptureFixture
) -> None:
    lister.list()
    gone = (404, b'{"message": "not found"}')
    other = page({"client_id": "client_other", "id": "conn_app_other"})
    server.trouble = lambda scope: other if scope["path"] == LIST else gone
    for _ in range(3):
        lister.list(lambda it: it.lister.error)
    server.trouble = lambda _: None
    lister.list()

    assert lister.refused == set()
    assert [each["error"] for each in fields(caplog, "applications_failed")] == [
        "another environment (none of the known applications is in it)"
    ]


def test_last_application_of_an_environment_is_refused_if_its_organization_is_there(
    ec_key: SigningKey, clock: ManualClock
) -> None:
    with WorkOS(ec_key, 1) as server:
        lister = Lister(server, clock)
        lister.list()
        server.delete(0)
        lister.list()
        lister.close()

    assert lister.refused == clients(0)


def test_not_found_that_is_not_from_workos_refuses_no_application(server: WorkOS, lister: Lister) -> None:
    lister.list()
    server.delete(7)
    server.trouble = lambda scope: None if scope["path"] == LIST else (404, b"<html>")
    lister.list(lambda it: it.lister.error)

    assert lister.refused == set()
    assert lister.lister.error == "status 404 (but not from WorkOS)"


def test_application_of_an_unknown_form_may_be_any_of_those_that_are_missing(
    server: WorkOS, lister: Lister, caplog: pytest.LogCaptureFixture
) -> None:
    lister.list()
    server.delete(7)
    listed = [{"client_id": f"client_{n:05d}", "id": f"conn_app_{n:05d}"} for n in range(200) if n != 7]
    server.trouble = lambda scope: page(*listed, {"id": 7}) if scope["path"] == LIST else None
    lister.list()
    during = lister.refused
    server.trouble = lambda _: None
    lister.list()

    assert (during, lister.refused) == (set(), clients(7))
    assert fields(caplog, "applications_unread") == [{"source": "workos", "applications": 1}]


def test_application_that_is_listed_after_all_is_refused_no_longer(server: WorkOS, lister: Lister) -> None:
    lister.list()
    gone = (404, b'{"message": "not found"}')
    listed = [{"client_id": f"client_{n:05d}", "id": f"conn_app_{n:05d}"} for n in range(250) if n != 7]
    server.trouble = lambda scope: page(*listed) if scope["path"] == LIST else gone
    lister.list()
    during = lister.refused
    server.trouble = lambda _: None
    lister.list()

    assert (during, lister.refused) == (clients(7), set())


def test_what_an_operator_has_revoked_stays_so(lister: Lister) -> None:
    lister.operator.order(Order("revoke", "client", "client_00003", reason="application deleted in WorkOS"))
    lister.list()

    assert lister.refused == clients(3)


def test_what_an_operator_has_reinstated_stays_so(server: WorkOS, lister: Lister) -> None:
    lister.list()
    server.delete(7)
    lister.list()
    lister.operator.order(Order("reinstate", "client", "client_00007"))
    lister.list()

    assert lister.refused == set()


@pytest.mark.parametrize("first", ["store", "here"])
def test_ten_thousand_applications_take_a_hundred_requests(
    ec_key: SigningKey, clock: ManualClock, engine: Engine, first: str
) -> None:
    with WorkOS(ec_key, 10_000) as server:
        one = Lister(server, clock, engine if first == "store" else None)
        one.list()
        requests = server.lists
        server.delete(0, 4_999, 9_999)
        began = clock.now
        # Another process goes on where this one has ended, if they share a store.
        other = Lister(server, clock, engine) if first == "store" else one
        other.list()
        taken = clock.now - began
        for each in {one, other}:
            each.close()

    assert requests == 100
    assert server.lists == 200
    assert taken <= INTERVAL + 60
    assert len(other.lister.known) == 9_997


def test_process_that_does_not_lead_asks_nothing_and_knows_the_names(
    server: WorkOS, clock: ManualClock, engine: Engine
) -> None:
    leading, other = Lister(server, clock, engine), Lister(server, clock, engine)
    other.leads = False
    leading.list()
    asked = server.lists
    other.list(lambda it: it.lister.known)
    leading.close()
    other.close()

    assert server.lists == asked
    assert other.lister.known == leading.lister.known


@pytest.mark.parametrize(
    "told",
    [
        None,
        [],
        {},
        {"client_id": "client_1"},
        {"client_id": 1, "id": "conn_app_1"},
        {"client_id": "client 1", "id": "conn_app_1"},
        {"client_id": "client_1\n", "id": "conn_app_1"},
        {"client_id": "", "id": "conn_app_1"},
    ],
)
def test_what_names_no_application_is_none(told: object) -> None:
    assert ours.Application.of(told) is None


def test_hostile_names_are_texts_of_a_bounded_length() -> None:
    hostile = "<b>\x1b[2J\u202e\n\ud800"
    told = {"client_id": "client_1", "id": "conn_app_1", "name": hostile + "x" * 1000, "description": ["x"]}
    found = ours.Application.of(told)

    assert found is not None
    assert found.name.startswith(r"<b>\x1b[2J\u202e\n\ud800xxx")
    assert (len(found.name), found.description) == (ours.MAX_NAME, "")
    assert ours.Application.parse("client_1", found.text()) == found


def test_names_that_somebody_wrote_into_the_store_are_bounded_and_visible() -> None:
    text = json.dumps(["conn_app_1", "org_1", "\x1b[2J" + "x" * 1000, "y" * 1000])
    found = ours.Application.parse("client_1", text)

    assert found is not None
    assert found.name.startswith(r"\x1b[2J")
    assert (len(found.name), len(found.description)) == (ours.MAX_NAME, ours.MAX_DESCRIPTION)


@pytest.mark.parametrize("text", [b"", b"{}", b"[1,2,3,4]", b'["a"]', b"[" * 100_000])
def test_what_a_store_holds_by_mistake_is_no_application(text: bytes) -> None:
    assert ours.Application.parse("client_1", text) is None
