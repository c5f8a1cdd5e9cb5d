"""Several replicas and one plan: what they admit together, whatever happens to the store or to one of them."""

import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from authz.demo import children
from authz.runtime.flow import run
from authz.store.places import LEASE_SECONDS, SharedPlaces
from authz.store.trips import Trips
from tests.doubles import ORG
from tests.programs import PATIENCE, environment
from tests.store.callers import ROOT, calls_of
from tests.store.engines import Engine
from tests.store.stand_ins import Stream

RATE, BURST = 400, 200


def test_replicas_admit_together_no_more_than_the_plan(engine: Engine) -> None:
    told = calls_of(engine, [5 * RATE / 4] * 4, RATE, BURST, seconds=1.5)

    bound = BURST + RATE * told.seconds
    # What a busy machine had counted without the store comes on top, until the store has learnt of it.
    assert told.admitted - told.leases["local"] <= bound
    assert told.admitted <= bound + BURST
    assert told.refused.keys() == {"quota_exceeded"}
    assert told.admitted > 0.5 * bound


def test_replicas_that_keep_to_the_plan_are_not_refused_however_their_calls_are_spread(engine: Engine) -> None:
    told = calls_of(engine, [0.8 * RATE * part for part in (0.6, 0.3, 0.1)], RATE, BURST, seconds=1.5)

    assert told.refused == {}
    assert told.admitted == pytest.approx(0.8 * RATE * 1.5, abs=10)


def _crash(engine: Engine) -> None:
    engine.kill()
    time.sleep(1.5)
    engine.start()


def _hang(engine: Engine) -> None:
    engine.hang()
    time.sleep(1.5)
    engine.go_on()


def _falter(engine: Engine) -> None:
    for _ in range(12):
        engine.hang()
        time.sleep(0.08)
        engine.go_on()
        time.sleep(0.05)


# One that crashes has lost its counts as well, and begins with full buckets.
@pytest.mark.parametrize(("happens", "bursts"), [(_crash, 2), (_hang, 1), (_falter, 1)])
def test_a_store_in_trouble_costs_no_more_than_a_burst(
    engine: Engine, happens: Callable[[Engine], None], bursts: int
) -> None:
    def meanwhile() -> None:
        time.sleep(0.5)
        happens(engine)

    told = calls_of(engine, [5 * RATE / 3] * 3, RATE, BURST, seconds=3.0, meanwhile=meanwhile)

    assert told.admitted <= (1 + bursts) * BURST + RATE * told.seconds
    assert told.refused.keys() == {"quota_exceeded"}
    # Without the store organizations go on, though they had used up their quota when it went away.
    assert told.leases["local"] > (0 if happens is _falter else 100)


HOLDER = """
import sys, time
from authz.runtime.flow import run
from authz.store.connection import Store
from authz.store.places import SharedPlaces
from authz.store.trips import Trips
from tests.store.stand_ins import Stream

places = SharedPlaces(Trips(Store(sys.argv[1])), lease=float(sys.argv[3]), if_unavailable="deny")
streams = [Stream() for _ in range(5)]
for stream in streams:
    run(places.take(stream, sys.argv[2], 5))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("lease", [1.0, pytest.param(LEASE_SECONDS, marks=pytest.mark.long)])
def test_the_places_of_a_replica_that_was_killed_come_free(
    engine: Engine, lease: float, record_property: Callable[[str, object], None]
) -> None:
    trips = Trips(engine.store())
    places = SharedPlaces(trips, lease=lease)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, engine.url, ORG, str(lease)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(dict(children.mark())),
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with engine.client() as asking:
            assert asking.zcard(f"authz:s:{ORG}") == 5
            holder.kill()
            killed = time.monotonic()
            # Counted as soon as the first of them is free.
            while (found := _ends(places)) != "":
                assert found == "quota_exceeded"
                assert time.monotonic() - killed < PATIENCE
                time.sleep(0.02)
        record_property("seconds until the first place was free", round(time.monotonic() - killed, 2))
        assert time.monotonic() - killed < PATIENCE
    finally:
        holder.kill()
        holder.communicate(timeout=PATIENCE)
        trips.close()


def _ends(places: SharedPlaces) -> str:
    try:
        run(places.take(Stream(), ORG, 5))
    except Exception as error:  # noqa: BLE001 - its reason is what is looked at
        return str(getattr(error, "reason", error))
    return ""
