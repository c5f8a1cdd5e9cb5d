"""``authz serve --workos-events``: what is deleted in WorkOS is refused in every worker and replica."""

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from authz.demo.issuer.directory import Directory
from authz.demo.issuer.program import Issuer, IssuerServer
from authz.demo.issuer.signing import SigningKey
from authz.demo.issuer.webhooks import Webhooks
from tests.doubles import jwks, m2m_claims
from tests.programs import PATIENCE, run
from tests.server.admin.site import SERVE
from tests.server.serving.serving import LOOPBACK
from tests.server.workos.replica import Replica
from tests.store.engines import Engine

ALLOWED, UNAUTHENTICATED = 0, 16
ACME = "org_01JYACME000000000000000001"


@pytest.fixture
def token(ec_key: SigningKey) -> str:
    return ec_key.sign(m2m_claims(time.time(), org_id=ACME))


@pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one process", "two workers"])
def test_organization_that_is_deleted_in_workos_is_refused_and_said(
    tmp_path: Path, ec_key: SigningKey, token: str, flags: tuple[str, ...]
) -> None:
    with IssuerServer(Issuer(keys=[ec_key])) as issuer:
        with Replica(tmp_path / "a", issuer, "--orders", "orders.jsonl", *flags) as server:
            before = server.check(token)
            issuer.issuer.environment.delete_organization(ACME)
            server.until(lambda: set(server.check(token)) == {UNAUTHENTICATED})
            told, source = server.orders(), server.get("overview")["source"]
        with Replica(tmp_path / "a", issuer, "--orders", "orders.jsonl", *flags) as server:
            after_restart = server.check(token)
        secret = issuer.issuer.directory.api_key

    lines = [json.loads(line) for line in (tmp_path / "a/orders.jsonl").read_text().splitlines()]
    assert set(before) == {ALLOWED}
    assert set(after_restart) == {UNAUTHENTICATED}
    assert told == [("revoke", ACME, "workos", "deleted in WorkOS")]
    assert lines[-1]["cursors"]["workos"] == source["cursor"]
    assert source["cursor"]["id"].startswith("event_")
    assert (source["leader"], source["error"], source["age"] < PATIENCE) == ("", "", True)
    assert secret not in server.program.text


def test_another_replica_goes_on_when_the_one_that_follows_is_killed(
    tmp_path: Path, ec_key: SigningKey, token: str
) -> None:
    with Engine("valkey") as store, IssuerServer(Issuer(keys=[ec_key])) as issuer:
        shares = ("--store", store.url)
        with Replica(tmp_path / "a", issuer, *shares) as first, Replica(tmp_path / "b", issuer, *shares) as second:
            first.until(lambda: issuer.requests["/events"] > 0)
            with store.client() as asking:
                leader: Any = asking.get("authz:{workos}:leader")
            dies, lives = (first, second) if leader.endswith(f"-{first.program.pid}".encode()) else (second, first)
            dies.program.send(signal.SIGKILL)
            issuer.issuer.environment.delete_organization(ACME)
            lives.until(lambda: set(lives.check(token)) == {UNAUTHENTICATED})
            lives.until(lambda: lives.orders() == [("revoke", ACME, "workos", "deleted in WorkOS")])


@pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one process", "two workers"])
def test_application_that_is_deleted_in_workos_is_refused_and_said(
    tmp_path: Path, ec_key: SigningKey, token: str, flags: tuple[str, ...]
) -> None:
    lists = ("--workos-applications", "--workos-applications-interval", "5", "--http-listen", LOOPBACK)
    with IssuerServer(Issuer(keys=[ec_key])) as issuer:
        client = issuer.issuer.directory.applications[0].client_id
        token = ec_key.sign(m2m_claims(time.time(), org_id=ACME, client_id=client, sub=client))
        with Replica(tmp_path / "a", issuer, *lists, *flags) as server:
            before = server.check(token)
            server.until(lambda: issuer.requests["/connect/applications"] > 0)
            issuer.issuer.environment.delete_application(client)
            server.until(lambda: set(server.check(token)) == {UNAUTHENTICATED})
            told = server.orders()
            [probes] = [event["address"] for event in server.program.events() if event["event"] == "probes"]
            figures = httpx2.get(f"http://{probes}/metrics", trust_env=False, timeout=PATIENCE).text.splitlines()
        secret = issuer.issuer.directory.api_key

    assert set(before) == {ALLOWED}
    assert told == [("revoke", client, "workos", "application deleted in WorkOS")]
    assert 'authz_source_applications_refused_total{source="workos"} 1.0' in figures
    assert secret not in server.program.text


@pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one process", "two workers"])
def test_page_and_decision_log_say_what_the_application_is_called(
    tmp_path: Path, ec_key: SigningKey, flags: tuple[str, ...]
) -> None:
    lists = ("--workos-applications", "--decision-log", "all", "--decision-log-file", "log.jsonl")
    with Engine("valkey") as store, IssuerServer(Issuer(keys=[ec_key])) as issuer:
        application = issuer.issuer.directory.applications[0]
        of_it = {"client_id": application.client_id, "sub": application.client_id, "org_id": application.org_id}
        token, shares = ec_key.sign(m2m_claims(time.time(), **of_it)), ("--store", store.url, *lists, *flags)
        with Replica(tmp_path / "a", issuer, *shares) as first, Replica(tmp_path / "b", issuer, *shares) as second:
            for replica in (first, second):
                replica.until(lambda at=replica: has_named(at, token, application.name))  # type: ignore[misc]
            [organization] = first.get("overview")["organizations"]
            sources = [each.get("overview")["source"] for each in (first, second)]
            replicas = {each["id"]: each for each in first.get("overview")["replicas"]}
            issuer.issuer.environment.delete_organization(application.org_id)
            second.until(lambda: set(second.check(token)) == {UNAUTHENTICATED})
            second.until(lambda: orders_in(second) == {"", "workos"})
            cursors = [each.get("overview")["source"]["cursor"] for each in (first, second)]
        [newest], _ = issuer.issuer.environment.events.page(["organization.deleted"], limit=1, is_ascending=False)

    called = {"name": application.name, "description": application.description}
    assert organization["applications"] == {application.client_id: called}
    assert [source["leader"] in replicas for source in sources] == [True, True]
    assert sources[0]["leader"] == sources[1]["leader"]
    assert [cursor["id"] for cursor in cursors] == [newest.id, newest.id]


def logged(server: Replica) -> list[Any]:
    lines = (server.folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def has_named(server: Replica, token: str, name: str) -> bool:
    """Say whether a decision of each worker has the name, after another check."""
    server.check(token)
    told = server.get("decisions")["decisions"]
    named = {each["id"].partition("-")[0] for each in told if each["client_name"] == name and "replica" not in each}
    return len(named) == len(server.addresses) and any(line["client_name"] == name for line in logged(server))


def orders_in(server: Replica) -> set[str]:
    return {line["order_source"] for line in logged(server)}


def test_list_of_applications_needs_the_events(tmp_path: Path, ec_key: SigningKey) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    done = run(*SERVE, "--jwks", "jwks.json", "--listen", LOOPBACK, "--workos-applications", folder=tmp_path)

    assert done.returncode == 2
    assert "workos_applications: needs workos_events" in done.stdout + done.stderr


def test_events_without_a_key_are_a_mistake_that_names_the_remedy(tmp_path: Path, ec_key: SigningKey) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    done = run(*SERVE, "--jwks", "jwks.json", "--listen", LOOPBACK, "--workos-events", folder=tmp_path)

    assert done.returncode == 2
    assert "workos_api_key: missing; set AUTHZ_WORKOS_API_KEY or --workos-api-key-file" in done.stdout + done.stderr


def test_webhook_has_an_organization_refused_though_workos_is_asked_once_a_minute(
    tmp_path: Path, ec_key: SigningKey, token: str
) -> None:
    issuer, flags = Issuer(keys=[ec_key]), (*hooked(tmp_path), "--http-listen", LOOPBACK)
    with IssuerServer(issuer) as asked, Replica(tmp_path / "a", asked, *flags, interval="60") as server:
        server.until(lambda: asked.requests["/events"] == 1)
        with posting(issuer, server):
            issuer.environment.delete_organization(ACME)
            server.until(lambda: set(server.check(token)) == {UNAUTHENTICATED})
        [probes] = [event["address"] for event in server.program.events() if event["event"] == "probes"]
        figures = httpx2.get(f"http://{probes}/metrics", trust_env=False, timeout=PATIENCE).text.splitlines()

    assert asked.requests["/events"] <= 3
    assert [line for line in figures if line.startswith("authz_webhooks_total{")] == [
        'authz_webhooks_total{result="signed"} 1.0',
        'authz_webhooks_total{result="refused"} 0.0',
    ]
    assert issuer.directory.webhook_secret not in server.program.text


def test_webhook_of_one_replica_is_heard_by_the_one_that_leads(tmp_path: Path, ec_key: SigningKey, token: str) -> None:
    issuer = Issuer(keys=[ec_key])
    with Engine("valkey") as store, IssuerServer(issuer) as asked:
        flags = (*hooked(tmp_path), "--store", store.url, "--workers", "2")
        with (
            Replica(tmp_path / "a", asked, *flags, interval="60") as first,
            Replica(tmp_path / "b", asked, *flags, interval="60") as second,
        ):
            first.until(lambda: asked.requests["/events"] == 1)
            with store.client() as asking:
                leader: Any = asking.get("authz:{workos}:leader")
            other = second if leader.endswith(f"-{first.program.pid}".encode()) else first
            with posting(issuer, other):
                issuer.environment.delete_organization(ACME)
                for each in (first, second):
                    each.until(lambda each=each: set(each.check(token)) == {UNAUTHENTICATED})

    assert asked.requests["/events"] <= 3


@pytest.mark.parametrize("flags", [("--orders", "orders.jsonl"), ()], ids=["orders file", "nothing is kept"])
def test_organization_that_is_deleted_while_no_server_runs_is_refused_by_the_next(
    tmp_path: Path, ec_key: SigningKey, token: str, flags: tuple[str, ...]
) -> None:
    with IssuerServer(Issuer(keys=[ec_key])) as issuer:
        with Replica(tmp_path / "a", issuer, *flags) as server:
            before = server.check(token)
            server.until(lambda: issuer.requests["/events"] > 0)
        issuer.issuer.environment.delete_organization(ACME)
        with Replica(tmp_path / "a", issuer, *flags) as server:
            server.until(lambda: set(server.check(token)) == {UNAUTHENTICATED})
            told = server.orders()

    assert set(before) == {ALLOWED}
    assert told == [("revoke", ACME, "workos", "deleted in WorkOS")]


def hooked(folder: Path) -> tuple[str, ...]:
    """Return the flags of a server that takes webhooks of the development issuer."""
    (folder / "webhook").write_text(f"{Directory(audience='', organizations=()).webhook_secret}\n")
    secret = ("--workos-webhook-secret-file", str(folder / "webhook"))
    return ("--workos-webhooks", LOOPBACK, *secret)


@contextlib.contextmanager
def posting(issuer: Issuer, server: Replica) -> Iterator[None]:
    """Have the issuer post what happens in the block to a server, whose port is known only by now."""
    [address] = [event["address"] for event in server.program.events() if event["event"] == "webhooks"]
    webhooks = Webhooks(issuer.environment, f"http://{address}/webhooks/workos")
    webhooks.start()
    try:
        yield
    finally:
        webhooks.stop()
