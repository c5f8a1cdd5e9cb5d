"""What a directory says about organizations: asked sparingly, remembered, and never guessed."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from authz.errors import AuthzError, DirectoryUnavailableError
from authz.organizations.directory import FRESH, NONE_SECONDS, STALE, Directory, LookUpError
from authz.policy import Organization
from authz.runtime.flow import Flow, arun, run
from tests.doubles import ORG, PATIENCE, ManualClock, eventually, start_afresh

OTHER = "org_01JYOTHER0000000000000000000"
GOLD, SILVER = Organization(tenant="tenant-7", groups=frozenset({"gold"})), Organization(tenant="tenant-8")


class Source:
    """Where organizations are kept: counts questions, and may fail, or hang until the test lets it go on."""

    def __init__(self) -> None:
        self.organizations: dict[str, Organization] = {ORG: GOLD}
        self.error: BaseException | None = None
        self.asked: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def look_up(self, org_id: str) -> Organization | None:
        self.asked.append(org_id)
        assert self.gate.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        return self.organizations.get(org_id)


class AsyncSource(Source):
    """The same, asked by an async function."""

    async def look_up(self, org_id: str) -> Organization | None:  # type: ignore[override]
        self.asked.append(org_id)
        async with asyncio.timeout(PATIENCE):
            while not self.gate.is_set():  # noqa: ASYNC110 - another thread opens it
                await asyncio.sleep(0.001)
        if self.error is not None:
            raise self.error
        return self.organizations.get(org_id)


@pytest.fixture(params=[Source, AsyncSource], ids=["threads", "tasks"])
def source(request: pytest.FixtureRequest) -> Iterator[Source]:
    source: Source = request.param()
    yield source
    source.gate.set()


@pytest.fixture
def directory(source: Source, clock: ManualClock) -> Iterator[Directory]:
    directory = Directory(source.look_up, clock=clock.clock, jitter=lambda: 0.0)
    yield directory
    directory.close()


def find(directory: Directory, org_id: str = ORG) -> Organization | None:
    return run(directory.find(org_id))


def at_once(flow: Flow[Any]) -> Any:
    """Return the result of a flow that waits for nothing."""
    with pytest.raises(StopIteration) as done:
        next(flow)
    return done.value.value


def reason_of(directory: Directory, org_id: str = ORG) -> str:
    with pytest.raises(AuthzError) as caught:
        find(directory, org_id)
    return caught.value.reason


def test_an_organization_is_asked_about_once_and_then_costs_no_wait(directory: Directory, source: Source) -> None:
    assert find(directory) == GOLD
    assert at_once(directory.find(ORG)) is GOLD
    assert source.asked == [ORG]


def test_tasks_are_served_like_threads(directory: Directory) -> None:
    assert asyncio.run(arun(directory.find(ORG))) == GOLD


def test_look_up_that_wants_to_exit_is_a_failure_that_ends_its_question(
    directory: Directory, source: Source, clock: ManualClock
) -> None:
    source.error = SystemExit()
    assert reason_of(directory) == "directory_unavailable"
    source.error = None
    clock.advance(60)

    assert find(directory) == GOLD


def test_all_who_ask_at_a_time_share_one_question(directory: Directory, source: Source) -> None:
    source.gate.clear()
    with ThreadPoolExecutor(8) as callers:
        answers = [callers.submit(find, directory) for _ in range(8)]
        eventually(lambda: source.asked)
        source.gate.set()

        assert [answer.result(PATIENCE) for answer in answers] == [GOLD] * 8
    assert source.asked == [ORG]


def test_it_is_renewed_in_the_background_before_it_is_old(
    directory: Directory, source: Source, clock: ManualClock
) -> None:
    find(directory)
    clock.advance(0.8 * FRESH - 1)
    at_once(directory.find(ORG))
    assert source.asked == [ORG]

    clock.advance(1)
    source.organizations[ORG] = SILVER
    assert at_once(directory.find(ORG)) == GOLD
    eventually(lambda: directory.counters.found == 2)
    assert at_once(directory.find(ORG)) == SILVER
    assert source.asked == [ORG, ORG]


def test_record_that_was_not_used_for_long_is_renewed_first(
    directory: Directory, source: Source, clock: ManualClock
) -> None:
    find(directory)
    clock.advance(FRESH)
    source.organizations[ORG] = SILVER

    assert find(directory) == SILVER


def test_an_outage_is_bridged_for_an_hour_after_the_last_success(
    directory: Directory, source: Source, clock: ManualClock
) -> None:
    find(directory)
    source.error = LookUpError("timeout")
    clock.advance(FRESH)
    assert find(directory) == GOLD

    clock.advance(STALE - FRESH - 1)
    assert at_once(directory.find(ORG)) == GOLD
    eventually(lambda: directory.counters.failed == 2)
    clock.advance(1)
    assert reason_of(directory) == "directory_unavailable"


def test_a_directory_that_hangs_delays_no_call_with_an_older_answer(
    directory: Directory, source: Source, clock: ManualClock
) -> None:
    find(directory)
    source.gate.clear()
    clock.advance(FRESH)

    flow = directory.find(ORG)
    assert next(flow).seconds == 1.0
    with pytest.raises(StopIteration) as done:
        flow.throw(TimeoutError())
    assert done.value.value == GOLD


def test_that_there_is_none_is_remembered_for_a_minute(
    directory: Directory, source: Source, clock: ManualClock
) -> None:
    assert find(directory, OTHER) is None
    assert at_once(directory.find(OTHER)) is None
    source.organizations[OTHER] = SILVER
    clock.advance(NONE_SECONDS)

    assert find(directory, OTHER) == SILVER


def test_that_there_is_none_is_no_answer_for_an_outage(
    directory: Directory, source: Source, clock: ManualClock
) -> None:
    find(directory, OTHER)
    source.error = LookUpError("timeout")
    clock.advance(NONE_SECONDS)

    assert reason_of(directory, OTHER) == "directory_unavailable"


def test_an_outage_is_asked_about_by_one_at_a_time_and_ever_less(
    directory: Directory, source: Source, clock: ManualClock
) -> None:
    source.error = LookUpError("HTTP status 503")
    for _ in range(600):
        for number in range(3):
            assert reason_of(directory, f"org_{number}") == "directory_unavailable"
        clock.advance(1)

    # 1, 2, 4 … 32 s, and then one a minute.
    assert len(source.asked) == directory.counters.failed == 15
    assert directory.counters.refused == 1800 - 15


def test_its_end_is_noticed(directory: Directory, source: Source, clock: ManualClock) -> None:
    source.error = LookUpError("timeout")
    assert reason_of(directory) == "directory_unavailable"
    source.error = None
    assert reason_of(directory) == "directory_unavailable"
    clock.advance(1)

    assert find(directory) == GOLD
    assert find(directory, OTHER) is None


def test_a_pause_that_the_directory_asks_for_is_kept_and_told(
    directory: Directory, source: Source, clock: ManualClock
) -> None:
    source.error = LookUpError("HTTP status 429", pause=30)
    reason_of(directory)
    clock.advance(29)
    with pytest.raises(DirectoryUnavailableError) as caught:
        find(directory)

    assert (caught.value.retry_after, source.asked) == (1.0, [ORG])


def test_an_answer_that_cannot_be_used_concerns_no_other_organization(
    directory: Directory, source: Source, clock: ManualClock
) -> None:
    source.error = LookUpError("the answer is no organization", is_about_one=True)
    assert reason_of(directory, OTHER) == reason_of(directory, OTHER) == "directory_unavailable"
    source.error = None

    assert find(directory) == GOLD
    assert source.asked == [OTHER, ORG]
    clock.advance(60)
    assert find(directory, OTHER) is None


def test_an_unforeseen_error_fails_closed_and_its_text_is_not_logged(
    directory: Directory, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    source.error = ValueError("sk_secret")

    assert reason_of(directory) == "directory_unavailable"
    assert "unforeseen_error where='directory' error='ValueError'" in caplog.text
    assert "sk_secret" not in caplog.text


def test_an_outage_is_one_line_of_the_log_and_so_is_its_end(
    directory: Directory, source: Source, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "authz")
    source.error = LookUpError("timeout")
    for _ in range(5):
        reason_of(directory)
        clock.advance(60)
    source.error = None
    find(directory)

    assert [record.message for record in caplog.records] == [
        "directory_failed directory='Directory' error='timeout'",
        "directory_recovered directory='Directory'",
    ]


def test_those_that_wait_for_a_thread_are_not_asked_about_when_the_first_have_failed(
    directory: Directory, source: Source
) -> None:
    source.gate.clear()
    flows = [directory.find(f"org_{number}") for number in range(100)]
    questions = [next(flow).future for flow in flows]
    eventually(lambda: len(source.asked) == 8)
    source.error = LookUpError("timeout")
    source.gate.set()

    assert [question.result(PATIENCE) for question in questions] == [None] * 100
    assert len(source.asked) == 8
    assert (directory.counters.failed, directory.counters.refused) == (8, 92)
    for flow in flows:
        flow.close()


def test_no_more_than_a_few_hundred_wait(directory: Directory, source: Source) -> None:
    source.gate.clear()
    flows = [directory.find(f"org_{number}") for number in range(256)]
    for flow in flows:
        next(flow)

    assert reason_of(directory, "org_one-more") == "directory_unavailable"
    for flow in flows:
        flow.close()


def test_no_more_than_it_has_room_for_are_remembered(source: Source) -> None:
    directory = Directory(source.look_up, size=2)
    for org_id in ("org_1", "org_2", "org_3", "org_1"):
        find(directory, org_id)
    directory.close()

    assert source.asked == ["org_1", "org_2", "org_3", "org_1"]


def test_a_call_that_is_given_up_leaves_the_question_to_the_others(directory: Directory, source: Source) -> None:
    source.gate.clear()

    async def one_gives_up() -> Organization | None:
        first = asyncio.create_task(arun(directory.find(ORG)))
        second = asyncio.create_task(arun(directory.find(ORG)))
        await asyncio.sleep(0)
        first.cancel()
        source.gate.set()
        return await second

    assert asyncio.run(one_gives_up()) == GOLD
    assert source.asked == [ORG]


def test_closing_ends_what_waits(directory: Directory, source: Source) -> None:
    source.gate.clear()
    flows = [directory.find(f"org_{number}") for number in range(20)]
    questions = [next(flow).future for flow in flows]
    eventually(lambda: len(source.asked) == 8)
    directory.close()

    assert [question.result(PATIENCE) for question in questions[8:]] == [None] * 12
    for flow in flows:
        flow.close()


def test_a_fork_asks_anew(directory: Directory, source: Source) -> None:
    find(directory)
    start_afresh(directory)

    assert find(directory) == GOLD
    assert source.asked == [ORG, ORG]


def test_a_callers_haste_does_not_choose_the_older_record(
    directory: Directory, source: Source, clock: ManualClock
) -> None:
    """R1: a caller removed from a group must not keep its place there by a short deadline."""
    find(directory)
    source.organizations[ORG] = SILVER
    source.gate.clear()
    clock.advance(FRESH)

    with pytest.raises(DirectoryUnavailableError):
        run(directory.find(ORG), timeout=0.0)
    source.gate.set()
    eventually(lambda: directory.counters.found == 2)
    assert find(directory) == SILVER


def test_no_organization_takes_all_the_threads_that_may_wait(directory: Directory, source: Source) -> None:
    """R3: questions beyond its share do not count as an outage."""
    source.gate.clear()
    flows = [directory.find(ORG), directory.find(OTHER)]
    one, other = (next(flow).threads for flow in flows)
    assert one is not None
    assert other is not None
    taken = 0
    while one.acquire(blocking=False):
        taken += 1

    assert (taken, other.acquire(blocking=False), reason_of(directory)) == (8, True, "overloaded")
    for flow in flows:
        flow.close()


# ---- A change is told ----


def test_change_that_is_told_counts_at_the_next_call(directory: Directory, source: Source) -> None:
    find(directory)
    source.organizations[ORG] = SILVER
    before = at_once(directory.find(ORG))
    directory.renew(ORG)

    assert (before, find(directory)) == (GOLD, SILVER)
    assert at_once(directory.find(ORG)) is SILVER
    assert source.asked == [ORG] * 2


def test_change_of_an_organization_that_does_not_call_asks_nothing(directory: Directory, source: Source) -> None:
    directory.renew(ORG)

    assert source.asked == []
    assert not directory.remembers(ORG)


def test_old_answer_serves_while_none_is_newer(directory: Directory, source: Source, clock: ManualClock) -> None:
    find(directory)
    source.error = LookUpError("refused")
    directory.renew(ORG)

    assert find(directory) == GOLD
    clock.advance(STALE)
    assert reason_of(directory) == "directory_unavailable"


def test_answer_of_the_time_before_the_change_is_not_remembered(directory: Directory, source: Source) -> None:
    source.gate.clear()
    with ThreadPoolExecutor(1) as callers:
        first = callers.submit(find, directory)
        eventually(lambda: source.asked)
        directory.renew(ORG)
        source.gate.set()
        assert first.result(PATIENCE) == GOLD
    source.organizations[ORG] = SILVER

    assert find(directory) == SILVER


def test_organization_whose_record_was_of_no_use_is_asked_about_once_it_has_changed(
    directory: Directory, source: Source
) -> None:
    source.error = LookUpError("not an organization", is_about_one=True)
    reason_of(directory)
    source.error = None
    directory.renew(ORG)

    assert find(directory) == GOLD
