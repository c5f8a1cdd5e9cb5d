"""Replicas in this process, and what they are asked in tests."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from authz import Authorizer, SharedState, Verifier
from authz.judge.orders.order import Order
from authz.store.connection import Store
from tests.doubles import AUDIENCE, ISSUER
from tests.programs import PATIENCE


def authorizer() -> Authorizer:
    return Authorizer(Verifier(issuer=ISSUER, audience=AUDIENCE))


@contextmanager
def replicas(
    store: Callable[[], Store], number: int = 1, **options: float
) -> Iterator[list[tuple[Authorizer, SharedState]]]:
    """Give the block replicas that have caught up."""
    judges = [authorizer() for _ in range(number)]
    found = [(judge, SharedState(store(), judge, **options)) for judge in judges]
    with ThreadPoolExecutor(number) as pool:
        try:
            list(pool.map(lambda one: one[1].__enter__(), found))
            yield found
        finally:
            list(pool.map(lambda one: one[1].stop(), found))


def until(what: Callable[[], object], seconds: float = PATIENCE) -> float:
    """Wait until something holds, and return after how many seconds it does."""
    began = time.perf_counter()
    while not what():
        assert time.perf_counter() - began < seconds, "it never came about"
        time.sleep(0.002)
    return time.perf_counter() - began


def suspend(name: str, **more: object) -> Order:
    return Order("suspend", "organization", name)._replace(**more)


def suspended(judge: Authorizer) -> set[str]:
    return set(judge.standing.suspended_organizations)
