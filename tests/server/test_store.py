"""``authz serve --store``: replicas obey the same orders, and a server that does not know them lets nobody in."""

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from authz.demo.issuer.signing import SigningKey
from authz.judge.orders.order import Order
from authz.store.orders_store import OrdersStore
from tests.doubles import ORG, jwks, m2m_claims
from tests.programs import PATIENCE
from tests.server.admin.site import Site
from tests.server.serving.serving import LOOPBACK
from tests.store.engines import Engine

ALLOWED, DENIED, UNAVAILABLE = 0, 7, 14
OTHER = "org_01JYGLOBEX00000000000000"

ONE, TWO = pytest.param((), id="one process"), pytest.param(("--workers", "2"), id="two workers")


@pytest.fixture
def store() -> Iterator[Engine]:
    with Engine("valkey") as engine:
        yield engine


@pytest.fixture
def folder(tmp_path: Path, ec_key: SigningKey) -> Path:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    (tmp_path / "policy.json").write_text(json.dumps({"name": "ledger", "allow_rules": [{"name": "everybody"}]}))
    return tmp_path


class Replica(Site):
    """A server that shares orders by a store; a context manager.

    Args:
        folder: where it runs.
        store: the store, which need not run.
        flags: its other flags.

    """

    def __init__(self, folder: Path, store: Engine, *flags: str) -> None:
        folder.mkdir(exist_ok=True)
        for name in ("jwks.json", "policy.json"):
            if not (folder / name).exists():
                (folder / name).write_bytes((folder.parent / name).read_bytes())
        super().__init__(folder, "--store", store.url, "--policy", "policy.json", "--http-listen", LOOPBACK, *flags)

    def probe(self, path: str) -> httpx2.Response:
        [address] = [event["address"] for event in self.program.events() if event["event"] == "probes"]
        return httpx2.get(f"http://{address}{path}", trust_env=False, timeout=PATIENCE)


@pytest.fixture
def token(ec_key: SigningKey) -> str:
    return ec_key.sign(m2m_claims(time.time()))


@pytest.fixture
def other(ec_key: SigningKey) -> str:
    return ec_key.sign(m2m_claims(time.time(), org_id=OTHER))


def write(store: Engine, *orders: Order) -> None:
    with contextlib.closing(store.store()) as reached:
        OrdersStore(reached).write(orders)


def suspend(name: str) -> Order:
    return Order("suspend", "organization", name, reason="unpaid", by="ann")


@pytest.mark.parametrize("flags", [ONE, TWO])
def test_what_is_ordered_anywhere_is_in_force_everywhere_and_shown(
    folder: Path, store: Engine, token: str, flags: tuple[str, ...]
) -> None:
    with Replica(folder / "a", store, "--store-region", "eu") as here, Replica(folder / "b", store, *flags) as there:
        before = there.check(token)
        here.order("suspend", ORG)
        there.until(lambda: set(there.check(token)) == {DENIED})
        told = there.get("overview")
        there.order("resume", ORG)
        here.until(lambda: here.check(token) == [ALLOWED])
        write(store, suspend(OTHER))
        there.until(lambda: there.get("overview")["suspended"] == [OTHER])
        there.until(lambda: not any(each["is_behind"] for each in there.get("overview")["replicas"]))
        there.until(lambda: all(each["policy"] for each in there.get("overview")["replicas"]))
        shown: dict[str, Any] = there.get("overview")
        wanted = {
            'authz_orders_in_force{kind="organization"} 1.0',
            'authz_orders_total{source="operator",verb="resume",way="here"} 1.0',
            'authz_orders_total{source="operator",verb="suspend",way="store"} 2.0',
            "authz_store_up 1.0",
            "authz_replicas 2.0",
            "authz_store_regressed_total 0.0",
            "authz_orders_ignored_total 0.0",
        }
        there.until(lambda: wanted <= set(there.probe("/metrics").text.splitlines()))

    assert set(before) == {ALLOWED}
    assert [(each["id"], each["by"]) for each in told["orders"]] == [(ORG, "admin page")]
    assert [(each["id"], each["reason"], each["by"]) for each in shown["orders"]] == [(OTHER, "unpaid", "ann")]
    assert sorted((each["region"], each["workers"], each["is_this"]) for each in shown["replicas"]) == [
        ("", 2 if flags else 1, True),
        ("eu", 1, False),
    ]
    assert all(each["policy"].startswith("ledger ") for each in shown["replicas"])
    assert shown["store"]["is_up"] is True


def test_pages_show_what_other_replicas_decide_in_all_their_workers(folder: Path, store: Engine, token: str) -> None:
    with Replica(folder / "a", store) as here, Replica(folder / "b", store, "--workers", "2") as there:

        def paths_seen(page: Replica, path: str) -> set[str]:
            (there if page is here else here).check(token, path=path)
            return {each["method"] for each in page.get("decisions")["decisions"] if "replica" in each}

        there.until(lambda: "/a.B/There" in paths_seen(here, "/a.B/There"))
        here.until(lambda: "/a.B/Here" in paths_seen(there, "/a.B/Here"))
        ids = {each["is_this"]: each["id"] for each in here.get("overview")["replicas"]}
        pids = {int(each.rpartition("-")[2]) for each in ids.values()}
        told = [each for each in here.get("decisions")["decisions"] if "replica" in each]
        figures = there.probe("/metrics").text
        sent = figures.partition('authz_decision_samples_total{result="sent"} ')[2]

    assert pids == {here.program.pid, there.program.pid}
    # None of its own comes to it by the store.
    assert {each["replica"] for each in told} == {ids[False]}
    assert {each["method"] for each in told} == {"/a.B/There"}
    assert all(each["organization"] == ORG and each["verdict"] == "allowed" for each in told)
    assert not any(token.rpartition(".")[2] in json.dumps(each) for each in told)
    assert float(sent.split()[0]) >= len(told)


@pytest.mark.parametrize("flags", [ONE, TWO])
def test_server_that_does_not_know_the_orders_lets_nobody_in(
    folder: Path, store: Engine, token: str, flags: tuple[str, ...]
) -> None:
    write(store, suspend(ORG))
    store.hang()
    with Replica(folder, store, *flags) as replica:
        unknown = replica.check(token)
        replica.until(lambda: replica.probe("/readyz").json().get("cause") in {"timeout", "unreachable"})
        unready = replica.probe("/readyz")
        alive = replica.probe("/healthz").status_code
        store.go_on()
        codes: list[int] = []

        def is_known() -> bool:
            codes.extend(replica.check(token))
            return codes[-1] == DENIED

        replica.until(is_known)
        replica.until(lambda: replica.probe("/readyz").status_code == 200)

    assert set(unknown) == {UNAVAILABLE}
    assert (unready.status_code, unready.json()["ready"], alive) == (503, False, 200)
    assert unready.json()["reason"] == "orders_unknown"
    assert set(codes) <= {UNAVAILABLE, DENIED}


@pytest.mark.parametrize("flags", [ONE, TWO])
def test_server_starts_from_its_file_while_the_store_is_away(
    folder: Path, store: Engine, token: str, other: str, flags: tuple[str, ...]
) -> None:
    flags = (*flags, "--orders", "orders.jsonl")
    write(store, suspend(ORG))
    with Replica(folder, store, *flags) as replica:
        replica.until(lambda: set(replica.check(token)) == {DENIED})
        replica.until(lambda: (folder / "orders.jsonl.lock").read_text().strip())
        replica.program.send(signal.SIGKILL)
        replica.program.wait()
    store.kill()
    with Replica(folder, store, *flags) as replica:
        codes = replica.check(token), replica.check(other)
        replica.until(lambda: replica.probe("/readyz").status_code == 200)
        # What is ordered meanwhile reaches the store when it is back, empty.
        replica.order("suspend", OTHER)
        store.start()
        replica.until(lambda: known_to(store) == {ORG, OTHER})

    assert (set(codes[0]), set(codes[1])) == ({DENIED}, {ALLOWED})


def known_to(store: Engine) -> set[str]:
    with contextlib.closing(store.store()) as reached:
        book, _ = OrdersStore(reached).load()
    return {order.id for order in book}


def test_file_that_is_too_old_says_nothing(folder: Path, store: Engine, token: str) -> None:
    (folder / "orders.jsonl.lock").write_text(f"{int(time.time()) - 30:015d}\n")
    store.kill()
    with Replica(folder, store, "--orders", "orders.jsonl", "--store-stale", "20") as replica:
        assert replica.check(token) == [UNAVAILABLE]


def test_store_that_cannot_be_used_is_said_at_the_start(folder: Path, store: Engine) -> None:
    with store.client() as client:
        client.execute_command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    replica = Replica(folder, store)
    try:
        assert replica.program.wait() == 2
        assert replica.program.text.count("\n") == 1
        assert replica.program.text.startswith("authz: store: ")
    finally:
        replica.program.__exit__()
