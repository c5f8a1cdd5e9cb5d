"""What is promised about orders while stores are killed, hang, lose what they had, and the way there breaks.

In the suite it is a fiftieth of what ``make chaos CHAOS_ROUNDS=50`` does: 10,000 orders under 50 kills, 20 hangs,
200 cuts and 20 partitions; 10 losses and 5 failovers; 100 starts.
"""

import json
import math
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest

from authz import Authorizer, SharedState
from authz.store.connection import Store, StoreError
from authz.store.orders_store import OrdersStore
from tests.programs import PATIENCE
from tests.store.engines import KINDS, Engine, free_port
from tests.store.fleet import authorizer, replicas, suspend, suspended, until
from tests.store.wire import Proxy

SHARE = min(1.0, int(os.environ.get("CHAOS_ROUNDS", "1")) / 50)
# Alone on a machine; in the suite others keep its cores busy.
LATEST = 1.0 if SHARE == 1 else 20.0
WRITTEN_BACK = 5.0 if SHARE == 1 else 60.0

Report = Callable[[str, object], None]


def some(number: int) -> int:
    """Return the share of ``number`` that is tried here."""
    return math.ceil(number * SHARE)


@pytest.fixture(params=KINDS)
def kept(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Return a store that keeps on disk what it has acknowledged."""
    with Engine(request.param, "--appendonly", "yes", "--appendfsync", "everysec") as engine:
        yield engine


class Evil(NamedTuple):
    """What was done, from when until when."""

    name: str
    began: float
    ended: float
    way: int | None = None
    """The only way to the store that was concerned, if not all were."""


class Writer:
    """Gives orders one by one, each again until the store has acknowledged it; a thread.

    Attributes:
        given: when each was acknowledged.
        most: how many it may give by now.

    """

    def __init__(self, store: Store, number: int, pause: float = 0.0) -> None:
        self._orders, self._number, self._pause = OrdersStore(store), number, pause
        self.given: dict[str, float] = {}
        self.most = number
        self.over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(PATIENCE * 5)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        for number in range(self._number):
            if self.over.wait(self._pause):
                return
            until(lambda number=number: number < self.most)
            name = f"org_{number}"
            while True:
                try:
                    self._orders.write([suspend(name)])
                except StoreError:
                    time.sleep(0.01)
                else:
                    break
            self.given[name] = time.time()


class Process:
    """A replica as a process of its own."""

    def __init__(self, url: str, folder: Path, name: str) -> None:
        self._output = folder / name
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.store.replica", url], stdin=subprocess.PIPE, stdout=output
            )
        until(lambda: b"caught up" in self._output.read_bytes())

    def in_force(self) -> dict[str, float]:
        """Return since when each order is in force."""
        lines = [line.split() for line in self._output.read_text().splitlines() if line[:1].isdigit()]
        assert all(verb == "suspend" for _, verb, _ in lines)
        return {name: float(at) for at, _, name in lines}

    def end(self) -> dict[str, Any]:
        """End it, and return what was in force."""
        self._process.communicate(timeout=PATIENCE)
        told: dict[str, Any] = json.loads(self._output.read_text().splitlines()[-1])
        return told

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def do(evil: str, engine: Engine, proxies: list[Proxy], chance: random.Random) -> Evil:
    began, way = time.time(), None
    if evil == "kill":
        engine.kill()
        engine.start()
    elif evil == "hang":
        engine.hang()
        time.sleep(chance.uniform(0.5, 4))
        engine.go_on()
    elif evil == "cut":
        place = chance.randrange(len(proxies) + 1)
        [engine, *proxies][place].cut()
        way = place or None
    else:
        way = 1 + chance.randrange(len(proxies))
        proxies[way - 1].part()
        time.sleep(chance.uniform(0.5, 4))
        proxies[way - 1].heal()
    return Evil(evil, began, time.time(), way)


def lateness(given: float, in_force: float, way: int, evils: list[Evil]) -> float:
    """Return how long after it was given, and the store could be reached by ``way``, an order was in force."""
    return in_force - max([given, *(e.ended for e in evils if e.began < in_force and e.way in (None, way))])


def test_no_order_is_missed_or_late_whatever_happens_to_the_store(
    kept: Engine, tmp_path: Path, record_property: Report
) -> None:
    chance = random.Random(14)  # noqa: S311 - for the same evils in every run
    counts = {"kill": some(50), "hang": some(20), "cut": some(200), "partition": some(20)}
    plan = [evil for evil, number in counts.items() for _ in range(number)]
    chance.shuffle(plan)
    writer = Writer(kept.store(timeout=0.5), some(10_000))
    evils: list[Evil] = []
    with ExitStack() as stack:
        proxies = [stack.enter_context(Proxy(kept.socket)) for _ in range(2)]
        urls = [kept.url, *(proxy.url for proxy in proxies)]
        processes = [stack.enter_context(Process(url, tmp_path, str(place))) for place, url in enumerate(urls)]
        writer.most = 0
        writer.start()
        for place, evil in enumerate(plan, 1):
            # So that there are orders before, during and after every evil.
            before, writer.most = writer.most, place * some(10_000) // len(plan)
            until(lambda before=before: len(writer.given) >= before)
            evils.append(do(evil, kept, proxies, chance))
        writer.most = some(10_000)
        writer.join()
        for process in processes:
            until(lambda process=process: process.in_force().keys() >= writer.given.keys())
        late = [
            lateness(writer.given[name], at, way, evils)
            for way, process in enumerate(processes)
            for name, at in process.in_force().items()
        ]
        told = [process.end() for process in processes]
    with replicas(kept.store) as [(judge, _)]:
        missed = writer.given.keys() - suspended(judge)
    late.sort()
    record_property("orders", len(writer.given))
    record_property("evils", counts)
    # Also one that keeps all on disk may lose the last second of it, if it is killed while its disk is busy.
    record_property("regressed", [one["regressed"] for one in told])
    record_property("missed", len(missed) + sum(len(writer.given) - len(one["in_force"]) for one in told))
    record_property(
        "late", [round(late[int(len(late) * share)], 4) for share in (0.5, 0.99, 0.999)] + [round(late[-1], 4)]
    )
    assert not missed
    assert all(set(one["in_force"]) == writer.given.keys() for one in told)
    assert late[-1] <= LATEST


@contextmanager
def pair(kind: str) -> Iterator[tuple[Engine, Engine]]:
    """Give the block a primary and its replica."""
    with Engine(kind, port=free_port()) as primary, Engine(kind, "--repl-diskless-sync-delay", "0") as copy:
        with copy.client() as asking:
            asking.execute_command("REPLICAOF", "127.0.0.1", str(primary.port))
            until(lambda: asking.info("replication").get("master_link_status") == "up")
        yield primary, copy


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lifted_by_any_loss_and_all_is_written_back(kind: str, record_property: Report) -> None:
    losses = ["empty", "empty and restart", "older copy"] * some(10)
    took: list[float] = []
    everything: set[str] = set()
    with Engine(kind) as engine, replicas(engine.store, 3) as found:
        writing = OrdersStore(engine.store())
        for place, loss in enumerate(losses):
            if loss == "older copy":
                with engine.client() as asking:
                    asking.save()
            new = {f"org_{place}_{number}" for number in range(1000 if place == 0 else 100)}
            everything |= new
            writing.write([suspend(name) for name in sorted(new)])
            until(partial(_is_obeyed, found, everything))
            if loss == "empty":
                engine.flush()
                with engine.client() as asking:
                    asking.save()
            else:
                if loss == "empty and restart":
                    (engine.folder / "dump.rdb").unlink(missing_ok=True)
                engine.kill()
                engine.start()
            took.append(until(partial(_is_written_back, engine, everything)))
            assert all(suspended(judge) == everything for judge, _ in found)
        with SharedState(engine.store(), late := authorizer()):
            assert suspended(late) == everything
    record_property("losses", len(losses))
    record_property("orders", len(everything))
    record_property("written back after", [round(min(took), 2), round(max(took), 2)])
    assert max(took) < WRITTEN_BACK


def _is_obeyed(found: list[tuple[Authorizer, SharedState]], names: set[str]) -> bool:
    return all(suspended(judge) >= names for judge, _ in found)


def _is_written_back(engine: Engine, names: set[str]) -> bool:
    with engine.client() as asking:
        return int(asking.hlen("authz:{orders}:state")) == len(names)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lifted_by_failovers_that_lose_what_was_acknowledged(kind: str, record_property: Report) -> None:
    took: list[float] = []
    lost: list[int] = []
    everything: set[str] = set()
    for round_ in range(some(5)):
        with (
            pair(kind) as (primary, copy),
            Proxy(primary.socket) as proxy,
            replicas(lambda: Store(proxy.url), 3) as found,
        ):
            for judge, _ in found[:1]:
                judge.operator.carry_out([suspend(name, at=1) for name in everything])
            OrdersStore(primary.store()).write([suspend(f"org_{round_}_{number}") for number in range(200)])
            until(lambda: copy.client().hlen("authz:{orders}:state") >= 200)
            # From now on the copy hears nothing, and all is acknowledged.
            with copy.client() as asking:
                asking.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))
                OrdersStore(primary.store()).write([suspend(f"org_{round_}_late_{number}") for number in range(100)])
                new = {f"org_{round_}_{number}" for number in range(200)}
                new |= {f"org_{round_}_late_{number}" for number in range(100)}
                everything |= new
                until(partial(_is_obeyed, found, new))
                before = [suspended(judge) for judge, _ in found]
                with primary.client() as last:
                    had = int(last.hlen("authz:{orders}:state"))
                primary.kill()
                lost.append(had - int(asking.hlen("authz:{orders}:state")))
                asking.execute_command("REPLICAOF", "NO", "ONE")
            proxy.path = copy.socket
            took.append(until(partial(_is_written_back, copy, everything)))
            assert all(suspended(judge) >= one for (judge, _), one in zip(found, before, strict=True))
    record_property("failovers", some(5))
    record_property("orders lost by the store", lost)
    record_property("written back after", [round(min(took), 2), round(max(took), 2)])
    assert min(lost) > 0
    assert max(took) < WRITTEN_BACK


def test_no_replica_decides_before_it_has_caught_up(kept: Engine, record_property: Report) -> None:
    OrdersStore(kept.store()).write([suspend(f"before_{number}") for number in range(2000)])
    writer = Writer(kept.store(), 10**9, pause=0.001)
    writer.start()
    missed = 0
    for _ in range(some(100)):
        known = set(writer.given)
        with SharedState(kept.store(), judge := authorizer()):
            missed += len((known | {f"before_{number}" for number in range(2000)}) - suspended(judge))
    writer.over.set()
    writer.join()
    record_property("starts", some(100))
    record_property("orders meanwhile", len(writer.given))
    assert missed == 0
