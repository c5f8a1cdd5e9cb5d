"""What orders cost that replicas share by a store: until one is in force, until all are loaded, and for each call."""

import gc
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median

from authz import Authorizer, Call, SharedState
from authz.judge.orders.order import MICROSECONDS, Order
from authz.runtime.flow import run
from authz.store.orders_store import OrdersStore
from benchmarks.material import claims, signing_key, verifier
from tests.store.engines import KINDS, Engine

ROUNDS, CALLS, ORDERS, SNAPSHOT, TOKENS, IDLE_SECONDS = 7, 3000, 200, 10_000, 1_000_000, 5.0

# Another process: its CPU time and its memory are those of one replica.
_REPLICA = """
import resource, sys, time
from authz import Authorizer, SharedState
from benchmarks.material import signing_key, verifier

def used():
    with open("/proc/self/status") as status:
        kilobytes = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    return time.process_time(), kilobytes / 1024

authorizer = Authorizer(verifier(signing_key("ES256")))
before = used()
with SharedState(sys.argv[1], authorizer, wait=None):
    after = used()
    time.sleep(1.0)
    began = time.process_time(), time.monotonic()
    time.sleep(float(sys.argv[2]))
    idle = (time.process_time() - began[0]) / (time.monotonic() - began[1])
    print(len(authorizer.standing.book.tokens), after[0] - before[0], after[1] - before[1], idle)
"""


def measure() -> dict[str, object]:
    """Return ratios of what is measured in turn, and what a replica takes that loads a million revoked tokens."""
    logging.getLogger("authz").addHandler(logging.NullHandler())
    logging.getLogger("authz").propagate = False
    return {f"snapshot of {SNAPSHOT:,} orders": _snapshot(), **{kind: _with_store(kind) for kind in KINDS}}


def _with_store(kind: str) -> dict[str, object]:
    with Engine(kind) as engine:
        figures = {"authorize": _authorize(engine), "order": _order(engine), "replica": _replica(engine)}
        _revoke_tokens(engine)
        return {**figures, f"replica that loads {TOKENS:,} revoked tokens": _replica(engine, 0.0)}


def _snapshot() -> dict[str, object]:
    """Return the milliseconds of many orders, all in one step and one by one."""
    orders = [Order("revoke", "client", f"client_{number}", at=MICROSECONDS + number) for number in range(SNAPSHOT)]
    at_once, one_by_one = [], []
    for _ in range(5):
        at_once.append(_cpu(lambda: _judge().operator.carry_out(orders)))
        judge = _judge()
        one_by_one.append(_cpu(lambda judge=judge: [judge.operator.carry_out([order]) for order in orders]))
    return {
        "at once ms": round(median(at_once) * 1e3, 1),
        "one by one ms": round(median(one_by_one) * 1e3, 1),
        "ratio": round(median(a / b for a, b in zip(at_once, one_by_one, strict=True)), 3),
    }


def _authorize(engine: Engine) -> dict[str, object]:
    """Return the CPU microseconds of a call with a remembered token, in a process that shares orders and that does not.

    That of the follower's threads is counted as well.
    """
    token = signing_key("ES256").sign(claims())
    call = Call(method="/shop.v1.Orders/Get", metadata=[("authorization", f"Bearer {token}")])
    rows: dict[str, list[float]] = {"without": [], "with": []}
    for turn in range(ROUNDS + 1):
        for name in ("with", "without") if turn % 2 else ("without", "with"):
            judge = _judge()
            with SharedState(engine.store(), judge) if name == "with" else nullcontext():
                run(judge.authorize(call))
                seconds = _cpu(lambda judge=judge: [run(judge.authorize(call)) for _ in range(CALLS)])
            if turn:  # The first round warms up.
                rows[name].append(seconds / CALLS)
    return {
        **{f"{name} us": round(median(seconds) * 1e6, 2) for name, seconds in rows.items()},
        "ratio": round(median(a / b for a, b in zip(rows["with"], rows["without"], strict=True)), 3),
    }


def _order(engine: Engine) -> dict[str, object]:
    """Return the milliseconds from an order in another connection until it is in force here, and those of a PING."""
    judge, store = _judge(), engine.store()
    orders, pings, waits = OrdersStore(store), [], []
    with SharedState(store, judge), engine.client() as client:
        for number in range(ORDERS):
            began = time.perf_counter()
            client.ping()
            pings.append(time.perf_counter() - began)
            began, name = time.perf_counter(), f"org_{number}"
            orders.write([Order("suspend", "organization", name)])
            while not judge.standing.book.about("suspend", "organization", name):
                time.sleep(0)
            waits.append(time.perf_counter() - began)
    store.close()
    return {
        "in force p50 ms": round(median(waits) * 1e3, 3),
        "PING p50 ms": round(median(pings) * 1e3, 3),
        "ratio": round(median(waits) / median(pings), 2),
    }


def _replica(engine: Engine, idle_seconds: float = IDLE_SECONDS) -> dict[str, object]:
    command = [sys.executable, "-c", _REPLICA, engine.url, str(idle_seconds)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()  # noqa: S603
    tokens, seconds, megabytes, idle = map(float, told)
    if idle_seconds:
        return {"idle, percent of a core": round(idle * 100, 3)}
    return {"tokens": int(tokens), "CPU s": round(seconds, 2), "MiB": round(megabytes)}


def _revoke_tokens(engine: Engine) -> None:
    end = time.time() + 86_400
    with engine.client() as client:
        for start in range(0, TOKENS, 10_000):
            # As long as the ids of WorkOS; they end within a day.
            page = {f" 01JYTOKEN{number:017d}": end - number % 80_000 for number in range(start, start + 10_000)}
            client.zadd("authz:{orders}:tokens", page)


def _judge() -> Authorizer:
    return Authorizer(verifier(signing_key("ES256")))


def _cpu(action: Callable[[], object]) -> float:
    gc.collect()
    began = time.process_time()
    action()
    return time.process_time() - began
