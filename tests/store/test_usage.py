"""Usage is added up in the store, each decision once, whatever happens to the store or to its answers."""

import contextlib
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from authz.decisions.usage import DAY, HOUR, OTHER, Row, Usage
from authz.decisions.usage_report import Query
from authz.demo import children
from authz.errors import ConfigError
from authz.store.connection import Script, Store, StoreError
from authz.store.usage import counts as in_store
from authz.store.usage.counts import HOURS_KEPT, UsageStore
from authz.store.usage.writer import BATCH, UsageWriter
from tests.decisions.samples import decision
from tests.events import told
from tests.programs import PATIENCE, environment
from tests.store.engines import Engine

ROOT = Path(__file__).parents[2]
NOON = int(datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0).timestamp())


def row(
    organization: str = "org_a", method: str = "/a", verdict: str = "allowed", time: int = NOON, client: str = "c"
) -> Row:
    return Row(time, organization, client, method, verdict, "envoy")


def asked(store: Store, by: str = "organization", now: float = NOON + HOUR, **more: float | str) -> dict[str, int]:
    query = Query(tuple(by.split(",")), **more)  # type: ignore[arg-type]
    report = UsageStore(store).read(query, now)
    named = [place for place, column in enumerate(report.group_columns) if column != "client_name"]
    calls = report.columns.index("calls")
    lines = {" ".join(str(line[place]) for place in named): int(line[calls]) for line in report.lines()}
    assert sum(lines.values()) == report.calls
    return lines


def observed(count: int = 1, method: str = "/a.B/C") -> Usage:
    usage = Usage()
    for _ in range(count):
        usage(decision(method=method)._replace(time=time.time()))
    return usage


class Flaky(Store):
    """A store whose next answers are lost, after or before the store has done what it was asked."""

    is_lost_after = is_lost_before = False

    def call(self, script: Script, keys, args, client=None):
        if self.is_lost_before:
            raise StoreError("timeout", self.address)
        answer = super().call(script, keys, args, client)
        if self.is_lost_after:
            raise StoreError("timeout", self.address)
        return answer


# ---- Adding and asking ----


def test_counts_of_all_senders_are_added_up_and_grouped(engine: Engine):
    store = engine.store()
    usage = UsageStore(store)
    usage.add("one", 1, {row(): 3, row("org_b", verdict="denied"): 2, row("", OTHER, "denied", client=""): 7})
    usage.add("two", 1, {row(): 10, row(method="/b", client="c 2"): 1, row("org_b", time=NOON + HOUR): 4})

    assert asked(store) == {"org_a": 14, "org_b": 6, "": 7}
    assert asked(store, "organization,method,verdict") == {
        "org_a /a allowed": 13,
        "org_a /b allowed": 1,
        "org_b /a denied": 2,
        "org_b /a allowed": 4,
        f" {OTHER} denied": 7,
    }
    assert asked(store, "client,door", organization="org_a") == {"c envoy": 13, "c 2 envoy": 1}
    noon = datetime.fromtimestamp(NOON, UTC)
    assert asked(store, "hour,verdict", organization="org_b", since=NOON - HOUR) == {
        f"{noon:%Y-%m-%dT%HZ} denied": 2,
        f"{noon.replace(hour=13):%Y-%m-%dT%HZ} allowed": 4,
    }


def test_what_has_been_added_is_not_added_again(engine: Engine):
    store = engine.store()
    usage = UsageStore(store)

    assert usage.add("one", 1, {row(): 3})
    assert not usage.add("one", 1, {row(): 3})
    assert usage.add("one", 2, {row(): 1})
    # Such as a packet that was under way while its sender gave up and sent it again.
    assert not usage.add("one", 1, {row(): 3})
    assert asked(store) == {"org_a": 4}


def test_names_may_be_anything(engine: Engine):
    store = engine.store()
    names = ["a b", "a:b", "{a}", "%", "*", "ä", "\x00", 'a"b', "x" * 300]
    rows = {row(name, f"/{name}", client=name): number for number, name in enumerate(names, 1)}
    UsageStore(store).add("one", 1, {**rows, row("half\ud800", "/half\ud800"): 100})

    assert asked(store, "organization,client,method") == {
        **{f"{name} {name} /{name}": number for number, name in enumerate(names, 1)},
        "half? c /half?": 100,
    }


def test_days_are_kept_for_as_long_as_told_and_hours_for_two_days(engine: Engine):
    store = engine.store()
    UsageStore(store, days=10).add("one", 1, {row(): 1})

    with engine.client() as client:
        ends = {key.decode(): client.expiretime(key) for key in client.keys("*")}
    hours = {end for name, end in ends.items() if ":h" in name}
    days = {end for name, end in ends.items() if ":d" in name}
    assert all(name.startswith("authz:u:") for name in ends)
    assert hours == {NOON + HOUR + HOURS_KEPT * HOUR}
    assert days == {NOON - 12 * HOUR + DAY + 10 * DAY}
    # And the number of the sender, longer than an answer can be waited for.
    assert 6 * DAY < ends["authz:u:{u}:sent:one"] - time.time() <= 7 * DAY + 1
    assert len(ends) == 6


def test_methods_have_their_names_for_as_long_as_anything_is_kept(engine: Engine):
    store = engine.store()
    UsageStore(store, days=1).add("one", 1, {row(): 1})

    with engine.client() as client:
        ends = {key.decode(): client.expiretime(key) for key in client.keys("*") if b"sent" not in key}
    assert max(ends.values()) == ends[f"authz:u:{{u}}:d{NOON // DAY}:methods"]


def test_methods_without_a_number_are_counted_under_one_name(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(in_store, "MAX_METHODS", 3)
    store = engine.store()
    UsageStore(store).add("one", 1, {row(method=f"/{number}"): 1 for number in range(10)})
    UsageStore(store).add("one", 2, {row(method="/1"): 5})

    assert asked(store, "method") == {"/0": 1, "/1": 6, "/2": 1, OTHER: 7}


def test_every_stretch_of_time_has_its_calls_in_whole_hours_or_days(engine: Engine):
    """Compared with counting all that was added, from four days ago until now."""
    store, choose = engine.store(), random.Random(14)  # noqa: S311 - not a secret
    now = int(time.time())
    # Hours that are no longer kept vanish at once.
    rows = {row(time=now // HOUR * HOUR - back * HOUR): back + 1 for back in range(96)}
    for number, (each, count) in enumerate(rows.items(), 1):
        UsageStore(store).add("one", number, {each: count})
    for _ in range(60):
        since, until = sorted(choose.sample(range(now - 4 * DAY, now), 2))
        report = UsageStore(store).read(Query(("organization",), since, until), now)
        begin, end = report.query.since, report.query.until
        assert report.calls == sum(count for each, count in rows.items() if begin <= each.time < end)
        assert since - DAY < begin <= since
        assert until <= end < until + DAY
        if since >= now - HOURS_KEPT * HOUR:
            assert since - HOUR < begin


def test_times_that_are_not_kept_are_an_error(engine: Engine):
    usage = UsageStore(engine.store())

    with pytest.raises(ConfigError, match="by: the store has no minutes"):
        usage.read(Query(("minute",)), NOON)
    with pytest.raises(ConfigError, match="by: the store has single hours of the last 48 only"):
        usage.read(Query(("hour",), since=NOON - 3 * DAY), NOON)


def test_what_is_not_ours_is_told_as_that(engine: Engine):
    store = engine.store()
    with engine.client() as client:
        client.hset(f"authz:u:{{u}}:d{NOON // DAY}", "something", "else")

    with pytest.raises(StoreError, match="has something else under these names"):
        asked(store)


# ---- Sending ----


def test_counts_are_sent_by_a_thread_and_the_rest_at_the_end(engine: Engine):
    store, usage = engine.store(), observed(3)
    writer = UsageWriter(store, usage, seconds=0.001)
    writer.start()
    deadline = time.monotonic() + PATIENCE
    while asked(store, now=time.time()) != {"org_01JYACME": 3} and time.monotonic() < deadline:
        time.sleep(0.001)
    writer.stop()
    slow = UsageWriter(store, observed(2), seconds=3600)
    slow.start()
    slow.stop()

    assert asked(store, now=time.time()) == {"org_01JYACME": 5}
    assert writer.unsent == slow.unsent == 0


def test_an_answer_that_is_lost_counts_nothing_twice(engine: Engine, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "authz")
    store, usage = Flaky(engine.url), observed(2)
    writer = UsageWriter(store, usage)
    store.is_lost_after = True
    with told("usage_unsent") as events:
        assert not writer.flush()
        assert not writer.flush()
    usage(decision()._replace(time=time.time()))
    store.is_lost_after = False
    with told("usage_sent"):
        assert writer.flush()

    assert events == [{"reason": "timeout", "calls": 2}]
    assert asked(store, now=time.time()) == {"org_01JYACME": 3}


def test_counts_wait_for_a_store_that_is_away_within_bounds_and_none_is_lost(engine: Engine):
    store, usage = Flaky(engine.url), Usage()
    writer = UsageWriter(store, usage, max_rows=50)
    store.is_lost_before = True
    for number in range(300):
        usage(decision(method=f"/a.B/{number}")._replace(time=time.time()))
        writer.flush()
    assert (writer.unsent, writer.failing) == (300, "timeout")
    assert len(writer._waiting) <= 100  # noqa: SLF001 - what is bounded
    store.is_lost_before = False
    assert writer.flush()

    assert (writer.unsent, writer.failing) == (0, "")
    assert writer.coarser >= 270
    methods = asked(store, "method", now=time.time())
    assert methods["/a.B/0"] == 1
    assert methods[OTHER] == writer.coarser
    assert sum(methods.values()) == 300


def test_many_rows_go_in_several_steps_also_of_several_days(engine: Engine):
    store, usage = engine.store(), Usage()
    for number in range(2 * BATCH + 1):
        usage(decision(method=f"/a.B/{number}")._replace(time=NOON - number % 3 * DAY))
    writer = UsageWriter(store, usage)
    assert writer.flush()

    assert sum(asked(store, "day").values()) == 2 * BATCH + 1
    assert len(asked(store, "day")) == 3
    assert len(asked(store, "method")) == 2 * BATCH + 1


def test_a_store_that_lost_everything_goes_on_from_there(engine: Engine):
    store, usage = engine.store(), observed(2)
    writer = UsageWriter(store, usage)
    writer.flush()
    engine.flush()
    usage(decision()._replace(time=time.time()))
    assert writer.flush()

    assert asked(store, now=time.time()) == {"org_01JYACME": 1}


# ---- Under load ----


@contextlib.contextmanager
def counting(engine: Engine, seed: str, calls: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.store.counting", engine.url, seed, str(calls)]
    variables = environment(children.mark())
    with subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.long
def test_the_sum_is_exact_though_the_store_is_killed_hangs_and_is_cut_off_under_load(engine: Engine):
    # Otherwise it loses what it has acknowledged, and no sender can know.
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    engine.kill()
    engine.start(*durable)
    with contextlib.ExitStack() as ending:
        processes = [ending.enter_context(counting(engine, seed, 30_000)) for seed in "ab"]
        trouble = 0
        while any(process.poll() is None for process in processes):
            time.sleep(0.1)
            trouble += 1
            if trouble % 3 == 0:
                engine.kill()
                time.sleep(0.05)
                engine.start(*durable)
            elif trouble % 3 == 1:
                engine.hang()
                time.sleep(0.3)
                engine.go_on()
            else:
                engine.cut()
        answers = [json.loads(process.communicate(timeout=PATIENCE)[0]) for process in processes]

    decided = Counter(answers[0]["counts"]) + Counter(answers[1]["counts"])
    assert decided.total() == 60_000
    assert trouble > 5
    store = engine.store()
    day = {"now": time.time(), "since": time.time() - DAY}
    assert asked(store, **day) == decided
    by_method = asked(store, "organization,method", **day)
    assert sum(by_method.values()) == decided.total()
    assert [answer["unsent"] for answer in answers] == [0, 0]


def test_a_child_sends_what_it_counts_itself_and_nothing_of_its_parent(engine: Engine):
    program = f"""
import os, time
from authz.decisions.usage import Usage
from authz.store.connection import Store
from authz.store.usage.writer import UsageWriter
from tests.decisions.samples import decision

usage = Usage()
writer = UsageWriter(Store({engine.url!r}), usage, seconds=3600)
writer.start()

def decide(calls):
    for _ in range(calls):
        usage(decision()._replace(time=time.time()))

decide(1)
writer.flush()
decide(10)
child = os.fork()
decide(100 if child == 0 else 1000)
if child != 0:
    os.waitpid(child, 0)
writer.stop()
os.write(1, b"%d " % writer.unsent)
os._exit(0)
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    started = {"cwd": ROOT, "env": environment(children.mark()), "timeout": PATIENCE}
    done = subprocess.run(command, capture_output=True, text=True, check=True, **started)

    assert done.stdout == "0 0 "
    assert asked(engine.store(), now=time.time()) == {"org_01JYACME": 1111}
