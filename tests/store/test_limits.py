"""What a process shares of its plans, from the beginning of a block to its end, and with how many others."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from authz import Authorizer, Call, Policy, Verifier
from authz.demo.issuer.signing import SigningKey
from authz.errors import ConfigError, ResourceExhaustedError
from authz.organizations.quota import Quotas
from authz.runtime.flow import Flow, arun, run, start
from authz.settings.store import StoreSettings
from authz.store.limits import SharedLimits
from authz.store.shared_state import SharedState, shared_state_of
from tests.doubles import ORG, m2m_claims
from tests.programs import PATIENCE
from tests.store.engines import Engine

METHOD = "/authz.demo.v1.Ledger/ListEntries"
PLAN = {"quotas": {"p": {"requests_per_second": 0.001, "burst": 5}}, "default_quota": "p"}
PLAIN = {"name": "p", "allow_rules": [{"name": "all"}]}


@pytest.fixture
def new_judge(verifier: Verifier) -> Callable[..., Authorizer]:
    verifier.warm_up()
    return lambda policy=PLAIN | PLAN: Authorizer(verifier, policy=Policy.from_document(policy))


@pytest.fixture
def token(ec_key: SigningKey) -> str:
    return ec_key.sign(m2m_claims())


@pytest.fixture
def two(engine: Engine, new_judge: Any) -> Iterator[list[SharedLimits]]:
    limits = [SharedLimits(engine.store(), new_judge()) for _ in range(2)]
    for each in limits:
        each.start()
    yield limits
    for each in limits:
        each.stop()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def call(token: str) -> Call:
    return Call(method=METHOD, metadata=(("authorization", f"Bearer {token}"),))


def admitted(judge: Authorizer, token: str, tries: int = 10) -> int:
    number = 0
    for _ in range(tries):
        try:
            run(judge.authorize(call(token)))
        except ResourceExhaustedError:
            continue
        number += 1
    return number


def test_judges_of_two_processes_admit_a_plan_together(engine: Engine, new_judge: Any, token: str) -> None:
    judges = [new_judge(), new_judge()]
    with SharedState(engine.store(), judges[0]), SharedState(engine.store(), judges[1]):
        assert sum(admitted(judge, token) for judge in judges) == 5
    # Each for itself again.
    assert [admitted(judge, token) for judge in judges] == [5, 5]
    assert all(type(judge.quotas) is Quotas and judge.streams.places is None for judge in judges)


def started(flow: Flow[Any]) -> Any:
    """Drive a flow by callbacks, as the native engine does."""
    done: Future[Any] = Future()
    start(flow, lambda result, error: done.set_result(result) if error is None else done.set_exception(error))
    return done.result(PATIENCE)


@pytest.mark.parametrize("drive", [run, lambda flow: asyncio.run(arun(flow)), started], ids=["run", "arun", "start"])
def test_every_driver_waits_for_a_lease(
    engine: Engine, new_judge: Any, token: str, drive: Callable[[Flow[Any]], Any]
) -> None:
    judge = new_judge()
    with SharedLimits(engine.store(), judge) as limits:
        for _ in range(5):
            drive(judge.authorize(call(token)))
        with pytest.raises(ResourceExhaustedError) as caught:
            drive(judge.authorize(call(token)))
        counts = limits.quotas.counts

    assert 0 < caught.value.retry_after <= 1000
    assert counts["granted"] + counts["local"] == 5


def test_processes_that_share_plans_are_counted(two: list[SharedLimits], engine: Engine) -> None:
    with engine.client() as asking:
        until(lambda: asking.zcard("authz:q:processes") == 2)
        assert {name.decode().partition("-")[2] for name in asking.zrange("authz:q:processes", 0, -1)} == {
            str(os.getpid())
        }
        until(lambda: max(each.processes for each in two) == 2)
        two[0].stop()
        until(lambda: asking.zcard("authz:q:processes") == 1)
        two[0].start()


def test_without_a_quota_nothing_is_asked_of_the_store(engine: Engine, new_judge: Any, token: str) -> None:
    judge = new_judge(PLAIN)
    with SharedLimits(engine.store(), judge):
        assert admitted(judge, token) == 10

    with engine.client() as asking:
        assert asking.keys() == []


@pytest.mark.parametrize("given", [{}, {"quota_if_unavailable": "deny"}])
def test_quotas_may_have_a_store_of_their_own(engine: Engine, new_judge: Any, token: str, given: Any) -> None:
    judge = new_judge()
    with Engine(engine.kind) as other:
        settings = StoreSettings(store=engine.url, quota_store=other.url, **given)
        shared = shared_state_of(settings, judge)
        assert shared is not None
        with shared:
            assert admitted(judge, token) == 5
            with other.client() as asking, engine.client() as orders:
                assert asking.exists(f"authz:q:{ORG}:0.001:5") == 1
                assert orders.keys("authz:q:*") == []


def test_a_store_for_quotas_alone_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="quota_store: set store as well"):
        StoreSettings.load(quota_store="redis://127.0.0.1")
