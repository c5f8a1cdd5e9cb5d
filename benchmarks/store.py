"""What orders in a store cost: until one is in force elsewhere, many at once, a million tokens, and no order at all."""

import json
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from statistics import median

from authz import SharedState
from authz.judge.authorizer import Authorizer
from authz.judge.orders.order import Order
from authz.store.connection import Store
from authz.store.orders_store import OrdersStore
from benchmarks.material import signing_key, verifier
from tests.store.engines import Engine

ORDERS, SNAPSHOT, TOKENS, IDLE_SECONDS = 300, 10_000, 1_000_000, 20


def measure() -> dict[str, object]:
    """Return milliseconds and ratios."""
    with Engine("valkey") as engine:
        report = _until_in_force(engine)
        engine.flush()
        report |= _at_once()
        report |= _apart("idle", engine.url)
        _list_tokens(engine)
        report |= _apart("tokens", engine.url)
    return report


def _until_in_force(engine: Engine) -> dict[str, object]:
    judge = Authorizer(verifier(signing_key()))
    arrived = threading.Event()
    judge.operator.watch(lambda _: arrived.set())
    orders, took, pings = OrdersStore(engine.store()), [], []
    with SharedState(engine.store(), judge), engine.client() as asking:
        for number in range(ORDERS):
            began = time.perf_counter()
            asking.ping()
            pings.append(time.perf_counter() - began)
            arrived.clear()
            began = time.perf_counter()
            orders.write([Order("suspend", "organization", f"org_{number}")])
            arrived.wait()
            took.append(time.perf_counter() - began)
    return {
        "a PING, ms": round(median(pings) * 1e3, 3),
        "from the order to in force, ms": round(median(took) * 1e3, 3),
        "of a PING": round(median(took) / median(pings), 1),
    }


def _at_once() -> dict[str, object]:
    now = round(time.time() * 1e6)
    orders = [Order("suspend", "organization", f"org_{number}", at=now) for number in range(SNAPSHOT)]
    costs = []
    for pages in ([orders], [[order] for order in orders]):
        judge, began = Authorizer(verifier(signing_key())), time.process_time()
        for page in pages:
            judge.operator.carry_out(page)
        costs.append(time.process_time() - began)
    return {
        f"{SNAPSHOT} orders at once, cpu ms": round(costs[0] * 1e3, 1),
        "of one by one": round(costs[0] / costs[1], 3),
    }


def _list_tokens(engine: Engine) -> None:
    end = time.time() + 86_400
    with engine.client() as asking:
        for start in range(0, TOKENS, 10_000):
            names = {f" 01KB{number:022d}": end + number % 86_400 for number in range(start, start + 10_000)}
            asking.zadd("authz:{orders}:tokens", names)


def _apart(what: str, url: str) -> dict[str, object]:
    """Measure in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.store", what, url]
    found: dict[str, object] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)  # noqa: S603 - ours
    return found


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(arguments: Sequence[str]) -> None:
    """Measure one thing, and print it."""
    what, url = arguments
    judge = Authorizer(verifier(signing_key()))
    # Everything is loaded before it is measured.
    Store(url).check()
    memory, began = _memory(), time.process_time()
    with SharedState(url, judge, wait=None):
        if what == "tokens":
            told: dict[str, object] = {
                f"loading {len(judge.operator.book.tokens)} revoked tokens, cpu s": round(
                    time.process_time() - began, 2
                ),
                "their memory, MiB": round((_memory() - memory) / 1024),
            }
        else:
            began = time.process_time()
            time.sleep(IDLE_SECONDS)
            told = {"an idle replica, of a core": round((time.process_time() - began) / IDLE_SECONDS, 5)}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1:])
