"""Quotas at the doors of gRPC: whoever has used up its own is refused before any handler runs."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pytest

from authz import Authorizer, Policy, Verifier
from authz.decisions.decision import Decision
from authz.demo.issuer.signing import SigningKey
from authz.errors import ResourceExhaustedError
from authz.runtime.flow import Flow, Wait
from tests.doubles import CLIENT, ManualClock, m2m_claims
from tests.interceptors.client import Outcome, bearer, call
from tests.interceptors.conftest import Serve, ServeAll
from tests.interceptors.servers import PATIENCE, Door
from tests.interceptors.service import handler, method
from tests.interceptors.streams import (
    AIO,
    AIO_READ_WRITE,
    AIO_SYNC,
    DOORS_OF_STREAMS,
    GRPC,
    STREAMING,
    Live,
    Running,
    Stage,
    acting,
)

KIND = "stream_stream"
OTHER = "org_01JYOTHER000000000000000"

# Whether it matches is known from the handler's context only, so that the door has to ask once more.
ASKS_TWICE = [{"name": "nobody", "source": {"principals": ["spiffe://nobody"]}}]

STREAMS = {"concurrent_streams": 2}


def policy(plan: Any, **more: Any) -> Policy:
    rules = {"name": "p", "allow_rules": [{"name": "everything"}], **more}
    return Policy.from_document({**rules, "quotas": {"basic": plan}, "default_quota": "basic"})


def is_refused(outcome: Outcome) -> bool:
    return (outcome.code, outcome.details, outcome.reason, outcome.messages) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "Quota exceeded",
        "QUOTA_EXCEEDED",
        [],
    )


# ---- Calls ----


def test_call_over_the_quota_reaches_nothing(
    serve_all: ServeAll, verifier: Verifier, kind: str, token: str, least: Iterable[bytes], *, clock: ManualClock
) -> None:
    plan = {"requests_per_second": 0.5, "burst": 1}
    served = serve_all(judge=Authorizer(verifier, policy=policy(plan)))
    assert served.call(kind, metadata=bearer(token)).code is grpc.StatusCode.OK
    served.witness.forget()

    outcome = served.call(kind, metadata=bearer(token), requests=least)

    assert is_refused(outcome)
    assert (outcome.retry_delay, outcome.trailers["retry-after"]) == (2, "2")
    assert (served.witness.sights, served.witness.parsed) == ([], [])
    clock.advance(2)
    assert served.call(kind, metadata=bearer(token)).code is grpc.StatusCode.OK


# ---- Streams ----


@pytest.fixture
def told() -> list[Decision]:
    return []


@pytest.fixture
def judge(verifier: Verifier, told: list[Decision]) -> Callable[..., Authorizer]:
    return lambda plan=STREAMS, **more: Authorizer(verifier, policy=policy(plan, **more), observers=[told.append])


@pytest.fixture
def new_live(clock: ManualClock, serve: Serve, token: str) -> Iterator[Callable[..., Live]]:
    """Return a function that serves one that answers, and has ``kind`` besides."""
    made = []

    def build(door: Door, authorizer: Authorizer, doing: str = "answers", kind: str = KIND, *outer: Any) -> Live:
        live = Live(door, authorizer, clock, serve, token)
        live.stages.append(Stage())
        live.running = []
        served = {
            method(kind): handler(kind, acting(door, kind, live.stages[0], doing)),
            method("unary_unary"): handler("unary_unary", lambda _request, _context: b"unary"),
        }
        live.channel = serve(served, *outer, door.interceptor(authorizer))
        made.append(live)
        return live

    yield build
    for live in made:
        live.over()


each_door = pytest.mark.parametrize("door", DOORS_OF_STREAMS, ids=lambda door: door.name)


def begin(live: Live, token: str | None = None) -> Running:
    running = live.start(KIND, token=token)
    # A call that nobody refers to is cancelled.
    live.running.append(running)
    running.feed.send(b"ready")
    assert running.read() == b"ready"
    return running


def summary(told: list[Decision]) -> list[tuple[str, str]]:
    return [(decision.verdict, "" if decision.refusal is None else decision.refusal.reason) for decision in told]


@each_door
@pytest.mark.parametrize("kind", STREAMING)
def test_stream_over_the_limit_is_refused_before_its_handler_runs(
    door: Door, kind: str, new_live: Any, judge: Any, told: list[Decision]
) -> None:
    live = new_live(door, judge({"concurrent_streams": 1}), "sleeps", kind)
    running = live.start(kind)
    assert live.stages[0].started.wait(PATIENCE)

    assert is_refused(live.start(kind).end())
    assert live.stages[0].made == 1
    running.leave()
    assert summary(told) == [("allowed", ""), ("denied", "quota_exceeded")]


@each_door
@pytest.mark.parametrize("deny_rules", [[], ASKS_TWICE], ids=["at-once", "asks-twice"])
def test_place_comes_free_when_a_stream_ends(
    door: Door, new_live: Any, judge: Any, ec_key: SigningKey, told: list[Decision], *, deny_rules: Any
) -> None:
    live = new_live(door, judge(deny_rules=deny_rules))
    first, second = begin(live), begin(live)
    assert is_refused(live.start(KIND).end())
    begin(live, ec_key.sign(m2m_claims(org_id=OTHER)))
    assert call(live.channel, "unary_unary", metadata=bearer(live.token)).messages == [b"unary"]

    first.leave()
    assert live.streams.are(2)
    third = begin(live)
    assert is_refused(live.start(KIND).end())
    second.feed.end()
    assert second.end().code is grpc.StatusCode.OK
    assert live.streams.are(2)
    begin(live)
    third.leave()

    refused = [verdict for verdict in summary(told) if verdict[0] != "allowed"]
    assert refused == [("denied", "quota_exceeded")] * 2
    assert len(told) == 8


@each_door
def test_place_of_a_stream_that_is_ended_comes_free(door: Door, new_live: Any, judge: Any) -> None:
    live = new_live(door, judge({"concurrent_streams": 1}))
    first = begin(live)
    live.authorizer.revoke(client_id=CLIENT)
    first.feed.send(b"late")
    assert first.end().code is grpc.StatusCode.UNAUTHENTICATED
    assert live.streams.are(0)

    live.authorizer.reinstate(client_id=CLIENT)
    begin(live)


@pytest.mark.parametrize("door", [GRPC, AIO], ids=lambda door: door.name)
def test_racing_streams_get_no_more_places_than_there_are(
    door: Door, new_live: Any, judge: Any, told: list[Decision]
) -> None:
    live = new_live(door, judge({"concurrent_streams": 3}))
    start = threading.Barrier(8)

    def race(_number: int) -> bool:
        start.wait(PATIENCE)
        try:
            begin(live)
        except grpc.RpcError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(race, range(8))) == 3
    assert sorted(summary(told)) == [("allowed", "")] * 3 + [("denied", "quota_exceeded")] * 5


@pytest.mark.parametrize("door", [GRPC, AIO], ids=lambda door: door.name)
def test_another_policy_limits_what_is_opened_from_then_on(door: Door, new_live: Any, judge: Any) -> None:
    live = new_live(door, judge())
    running = [begin(live), begin(live)]
    live.authorizer.replace_policy(policy({"concurrent_streams": 1}))
    assert is_refused(live.start(KIND).end())
    live.authorizer.replace_policy(policy({"concurrent_streams": 3}))
    begin(live)

    for one in running:
        one.feed.send(b"still")
        assert one.read() == b"still"


class Apart(grpc.aio.ServerInterceptor):
    """Has the verdict found in a task of its own, which is over before the RPC is."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return await asyncio.create_task(continuation(handler_call_details))


@pytest.mark.parametrize("door", [AIO, AIO_READ_WRITE, AIO_SYNC], ids=lambda door: door.name)
def test_limit_holds_where_an_interceptor_uses_another_task(door: Door, new_live: Any, judge: Any) -> None:
    live = new_live(door, judge(), "answers", KIND, Apart())
    first, _ = begin(live), begin(live)

    assert is_refused(live.start(KIND).end())
    first.leave()
    assert live.streams.are(1)
    begin(live)


# ---- Streams whose places other processes count as well ----


class CountedElsewhere:
    """Gives so many places to all who ask, and says so from another thread, a moment later."""

    def __init__(self, number: int) -> None:
        self.number, self._lock = number, threading.Lock()
        self.held: set[Any] = set()

    def check(self, _org_id: str) -> None:
        pass

    def take(self, stream: Any, org_id: str, _at_most: int) -> Flow[float]:
        answer: Future[bool] = Future()
        threading.Timer(0.01, lambda: answer.set_result(self._take(stream))).start()
        if not (yield Wait(answer, PATIENCE, whose=org_id)):
            raise ResourceExhaustedError
        return math.inf

    def _take(self, stream: Any) -> bool:
        with self._lock:
            if stream in self.held or len(self.held) < self.number:
                self.held.add(stream)
                return True
        return False

    def give_back(self, stream: Any) -> None:
        with self._lock:
            self.held.discard(stream)


@each_door
@pytest.mark.parametrize("more", [{}, {"deny_rules": ASKS_TWICE}], ids=["at once", "asks twice"])
def test_a_stream_that_waits_for_its_place_is_served_or_refused_as_another_is(
    door: Door, more: Any, new_live: Any, judge: Any, told: list[Decision]
) -> None:
    live = new_live(door, judge({"concurrent_streams": 5}, **more))
    places = live.authorizer.streams.places = CountedElsewhere(2)
    first, _ = begin(live), begin(live)

    assert is_refused(live.start(KIND).end())
    assert summary(told) == [("allowed", "")] * 2 + [("denied", "quota_exceeded")]
    first.leave()
    assert live.streams.are(1)
    assert len(places.held) == 1
    begin(live)


@each_door
def test_a_stream_without_a_limit_waits_for_no_place(door: Door, new_live: Any, judge: Any) -> None:
    live = new_live(door, judge({"requests_per_second": 1000}))
    live.authorizer.streams.places = CountedElsewhere(0)

    begin(live)


def begin_until_there_is_a_place(live: Live, places: CountedElsewhere) -> None:
    # What is being taken again comes free a moment later.
    deadline = time.monotonic() + PATIENCE
    while places.held and time.monotonic() < deadline:
        time.sleep(0.01)
    begin(live)


@pytest.mark.parametrize("door", [AIO, AIO_READ_WRITE, AIO_SYNC], ids=lambda door: door.name)
def test_a_place_that_is_taken_again_is_waited_for_too(door: Door, new_live: Any, judge: Any) -> None:
    live = new_live(door, judge(), "answers", KIND, Apart())
    places = live.authorizer.streams.places = CountedElsewhere(1)
    first = begin(live)
    assert live.streams.are(1)
    first.leave()
    assert live.streams.are(0)

    begin_until_there_is_a_place(live, places)
