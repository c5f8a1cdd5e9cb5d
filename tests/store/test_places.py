"""Places of open streams: how many there are, whose they are, and when they come free."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from authz import Authorizer, Policy, Verifier
from authz.errors import AuthzError, QuotaUnavailableError, ResourceExhaustedError
from authz.runtime.flow import Flow, run
from authz.store.leases import EMPTY
from authz.store.places import GIVE_BACK, LEASE_SECONDS, RENEW, TAKE, SharedPlaces
from authz.store.trips import Trips
from tests.doubles import ORG, ManualClock, drive
from tests.store.engines import Engine
from tests.store.stand_ins import Stream, Way, principal

OTHER = "org_01JYOTHER000000000000000"


def opening(places: SharedPlaces, stream: Stream, org_id: str = ORG, at_most: int = 2) -> Flow[str]:
    """Open a stream as the judge does; return why it is refused, or ``""``."""
    try:
        yield from places.take(stream, org_id, at_most)
    except AuthzError as error:
        return error.reason
    return ""


@pytest.fixture
def way() -> Way:
    return Way()


@pytest.fixture
def places(way: Way, clock: ManualClock) -> SharedPlaces:
    return SharedPlaces(cast("Trips", way), clock=clock.clock)


def held(places: SharedPlaces, way: Way, org_id: str = ORG) -> Stream:
    stream = Stream()
    flow = opening(places, stream, org_id)
    next(flow)
    way.answer(1)
    with pytest.raises(StopIteration) as done:
        flow.send(1)
    assert done.value.value == ""
    return stream


def scripts(way: Way) -> list[Any]:
    return [request.script for request in way.requests]


# ---- Of one process ----


def test_a_place_is_asked_for_given_back_once_and_not_asked_for_twice(places: SharedPlaces, way: Way) -> None:
    stream = held(places, way)
    assert run(opening(places, stream)) == ""
    assert way.requests == []

    places.give_back(stream)
    places.give_back(stream)
    assert scripts(way) == [GIVE_BACK]
    assert len(places) == 0


def test_where_there_is_no_place_that_is_remembered_for_a_moment(
    places: SharedPlaces, way: Way, clock: ManualClock
) -> None:
    flow = opening(places, Stream())
    next(flow)
    way.answer(0)
    with pytest.raises(StopIteration) as done:
        flow.send(0)
    assert (done.value.value, scripts(way)) == ("quota_exceeded", [GIVE_BACK])

    assert run(opening(places, Stream())) == "quota_exceeded"
    with pytest.raises(ResourceExhaustedError):
        places.check(ORG)
    places.check(OTHER)
    clock.advance(EMPTY + 0.001)
    places.check(ORG)
    next(opening(places, Stream()))


def test_a_stream_whose_client_leaves_while_it_waits_keeps_no_place(places: SharedPlaces, way: Way) -> None:
    flow = opening(places, Stream())
    next(flow)
    flow.close()

    # In this order: what was taken is given back.
    assert (scripts(way), len(places)) == ([TAKE, GIVE_BACK], 0)


def test_places_are_taken_again_three_times_as_often_as_they_end(
    places: SharedPlaces, way: Way, clock: ManualClock
) -> None:
    for org_id in (ORG, ORG, OTHER):
        held(places, way, org_id)
    for _ in range(2):
        clock.advance(LEASE_SECONDS / 3 - 0.1)
        places.renew()
        assert way.requests == []
        clock.advance(0.1)
        places.renew()

        assert sorted((request.key, len(request.args)) for request in way.requests) == [
            (f"authz:s:{ORG}", 3),
            (f"authz:s:{OTHER}", 2),
        ]
        assert set(scripts(way)) == {RENEW}
        way.answer(1, 1)


def test_what_was_given_back_is_not_taken_again(places: SharedPlaces, way: Way, clock: ManualClock) -> None:
    places.give_back(held(places, way))
    way.answer(1)
    clock.advance(LEASE_SECONDS)
    places.renew()

    assert way.requests == []


def test_many_places_are_taken_again_in_several_requests(places: SharedPlaces, way: Way, clock: ManualClock) -> None:
    for _ in range(1200):
        held(places, way)
    clock.advance(LEASE_SECONDS / 3)
    places.renew()

    assert [len(request.args) - 1 for request in way.requests] == [500, 500, 200]


def test_without_the_store_each_process_counts_against_its_share(way: Way, clock: ManualClock) -> None:
    places = SharedPlaces(cast("Trips", way), clock=clock.clock, replicas=lambda: 3)
    way.is_answering = way.is_open = False

    assert run(places.take(Stream(), ORG, 10)) == 3
    assert run(places.take(Stream(), ORG, 2)) == 1
    assert way.requests == []


def test_a_store_that_is_slow_is_waited_for_no_longer_than_50_ms(places: SharedPlaces, clock: ManualClock) -> None:
    began = clock.now

    assert drive(places.take(Stream(), ORG, 2), clock) == 2
    assert clock.now - began == pytest.approx(0.05, abs=1e-3)


def test_deny_refuses_what_the_store_does_not_count(way: Way, clock: ManualClock) -> None:
    places = SharedPlaces(cast("Trips", way), clock=clock.clock, if_unavailable="deny")
    way.is_answering = False

    with pytest.raises(QuotaUnavailableError):
        run(places.take(Stream(), ORG, 2))
    assert len(places) == 0


# ---- At the judge ----


@pytest.fixture
def judge(verifier: Verifier, places: SharedPlaces) -> Authorizer:
    plans = {"quotas": {"p": {"concurrent_streams": 2}}, "organizations": {ORG: {"quota": "p"}}}
    policy = Policy.from_document({"name": "p", "allow_rules": [{"name": "all"}], **plans})
    authorizer = Authorizer(verifier, policy=policy)
    authorizer.streams.places = places
    return authorizer


def test_the_judge_opens_a_stream_once_it_has_a_place(judge: Authorizer, way: Way) -> None:
    stream = Stream()
    opening = judge.endings.open(stream, principal(), float("inf"))
    assert opening is not None
    next(opening)
    assert len(judge.streams) == 0
    way.answer(1)
    with pytest.raises(StopIteration):
        opening.send(1)
    assert len(judge.streams) == 1

    judge.streams.close(stream)
    assert scripts(way) == [GIVE_BACK]


def test_an_organization_without_a_limit_asks_for_no_place(judge: Authorizer, way: Way) -> None:
    assert judge.endings.open(Stream(), principal(OTHER), float("inf")) is None
    assert (way.requests, len(judge.streams)) == ([], 1)


def test_an_order_that_comes_while_a_stream_waits_for_its_place_ends_it(judge: Authorizer, way: Way) -> None:
    stream = Stream()
    opening = judge.endings.open(stream, principal(), float("inf"))
    assert opening is not None
    next(opening)
    judge.suspend(org_id=ORG)
    way.answer(1)
    with pytest.raises(StopIteration):
        opening.send(1)

    assert stream.reasons == ["organization_suspended"]


def test_a_share_that_is_used_up_gives_back_what_may_have_been_taken(judge: Authorizer, way: Way) -> None:
    way.is_answering = False
    for refused in (False, False, True):
        opening = judge.endings.open(Stream(), principal(), float("inf"))
        assert opening is not None
        with pytest.raises(ResourceExhaustedError) if refused else contextlib.nullcontext():
            run(opening)
    assert scripts(way) == [GIVE_BACK]


# ---- In real stores ----


@pytest.fixture
def replicas(engine: Engine) -> Iterator[list[SharedPlaces]]:
    ways = [Trips(engine.store()) for _ in range(2)]
    yield [SharedPlaces(way, lease=2.0, if_unavailable="deny") for way in ways]
    for way in ways:
        way.close()


def opened(places: SharedPlaces, stream: Stream) -> str:
    """Open a stream; where a busy machine does not answer in time, once more."""
    while (reason := run(opening(places, stream))) == "quota_unavailable":
        time.sleep(0.01)
    return reason


def until(condition: Any) -> float:
    """Wait until something is so; return how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 120
        time.sleep(0.02)
    return time.monotonic() - began


def test_a_place_that_nobody_takes_again_comes_free_beside_others(engine: Engine) -> None:
    store = engine.store()

    def take(milliseconds: int, stream: str) -> int:
        answer: int = store.call(TAKE, [store.key("s:org")], [milliseconds, 2, stream])
        return answer

    assert [take(200, "crashed"), take(60_000, "open"), take(60_000, "more")] == [1, 1, 0]
    until(lambda: take(60_000, "more") == 1)
    assert take(60_000, "one more") == 0


def test_several_replicas_have_the_places_together(replicas: list[SharedPlaces]) -> None:
    first, second = replicas
    streams = [Stream() for _ in range(3)]
    assert [opened(first, streams[0]), opened(second, streams[1])] == ["", ""]
    assert [opened(each, streams[2]) for each in replicas] == ["quota_exceeded"] * 2

    first.give_back(streams[0])
    until(lambda: opened(second, streams[2]) == "")


def test_streams_that_stay_open_keep_their_places(replicas: list[SharedPlaces], engine: Engine) -> None:
    first, _ = replicas
    streams = [Stream() for _ in range(2)]
    assert [opened(first, stream) for stream in streams] == ["", ""]

    with engine.client() as asking:

        def ends() -> list[float]:
            return [end for _, end in asking.zrange(f"authz:s:{ORG}", 0, -1, withscores=True)]

        for _ in range(2):
            before = max(ends())
            until(lambda before=before: min(ends()) > before)


def test_a_store_that_was_emptied_learns_of_streams_that_are_open(replicas: list[SharedPlaces], engine: Engine) -> None:
    first, _ = replicas
    streams = [Stream() for _ in range(2)]
    assert [opened(first, stream) for stream in streams] == ["", ""]
    engine.flush()

    with engine.client() as asking:
        assert until(lambda: asking.zcard(f"authz:s:{ORG}") == 2) < 60
