"""Where the async function of a directory runs, and how it ends."""

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from authz.errors import DirectoryUnavailableError
from authz.organizations import look_ups
from authz.organizations.directory import Directory
from authz.policy import Organization
from authz.runtime.flow import arun, run
from tests.doubles import ORG, PATIENCE, eventually

GOLD = Organization(tenant="tenant-7")
OTHER = "org_01JYOTHER0000000000000000000"

AsyncLookUp = Callable[[str], Coroutine[Any, Any, Organization | None]]


@pytest.fixture
def directory_of() -> Iterator[Callable[[AsyncLookUp], Directory]]:
    made: list[Directory] = []

    def make(look_up: AsyncLookUp) -> Directory:
        made.append(Directory(look_up))
        return made[-1]

    yield make
    for directory in made:
        directory.close()


DirectoryOf = Callable[[AsyncLookUp], Directory]


class Pool:
    """What belongs to an event loop, as pools of connections do."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()

    async def fetch(self, org_id: str) -> Organization | None:
        assert asyncio.get_running_loop() is self.loop
        await asyncio.sleep(0)
        return GOLD if org_id == ORG else None


async def opened(gate: threading.Event) -> None:
    while not gate.is_set():  # noqa: ASYNC110 - another thread opens it
        await asyncio.sleep(0.001)


class Called:
    """An object that is called like an async function."""

    def __init__(self, look_up: AsyncLookUp) -> None:
        self._look_up = look_up

    async def __call__(self, org_id: str) -> Organization | None:
        return await self._look_up(org_id)


def test_it_runs_on_the_loop_that_decides_the_call(directory_of: DirectoryOf) -> None:
    async def serve() -> Organization | None:
        return await arun(directory_of(Pool().fetch).find(ORG))

    assert asyncio.run(serve()) is GOLD


def test_call_on_another_thread_uses_the_loop_that_asked_last(directory_of: DirectoryOf) -> None:
    async def serve() -> list[Organization | None]:
        directory = directory_of(Pool().fetch)
        first = await arun(directory.find(ORG))
        return [first, await asyncio.to_thread(lambda: run(directory.find(OTHER)))]

    assert asyncio.run(serve()) == [GOLD, None]


def test_in_a_server_of_threads_there_is_a_loop_for_it_until_the_end(directory_of: DirectoryOf) -> None:
    ran_on: list[threading.Thread] = []

    async def look_up(_org_id: str) -> Organization | None:
        ran_on.append(threading.current_thread())
        return GOLD

    directory = directory_of(look_up)
    assert [run(directory.find(each)) for each in (ORG, OTHER)] == [GOLD, GOLD]
    directory.close()

    [thread] = set(ran_on)
    thread.join(PATIENCE)
    assert (thread.name, thread.is_alive()) == ("authz-directory", False)


def test_directory_that_was_closed_can_ask_again(directory_of: DirectoryOf) -> None:
    async def look_up(_org_id: str) -> Organization | None:
        return GOLD

    directory = directory_of(look_up)
    run(directory.find(ORG))
    directory.close()

    assert run(directory.find(OTHER)) is GOLD


@pytest.mark.parametrize("how", [lambda it: it, functools.partial, Called], ids=["function", "partial", "object"])
def test_what_is_async_is_known_for_it(directory_of: DirectoryOf, how: Callable[[AsyncLookUp], AsyncLookUp]) -> None:
    async def look_up(_org_id: str) -> Organization | None:
        return GOLD

    assert run(directory_of(how(look_up)).find(ORG)) is GOLD


def test_function_that_hides_that_it_is_async_is_told_so(
    directory_of: DirectoryOf, caplog: pytest.LogCaptureFixture
) -> None:
    async def look_up(_org_id: str) -> Organization | None:
        return GOLD

    with pytest.raises(DirectoryUnavailableError):
        run(directory_of(lambda org_id: look_up(org_id or OTHER)).find(ORG))

    assert "error='look_up returns a coroutine; define it with async def'" in caplog.text


def test_one_that_hangs_is_cancelled(
    directory_of: DirectoryOf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(look_ups, "_LONGEST", 0.01)
    ended = threading.Event()

    async def look_up(_org_id: str) -> Organization | None:
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            ended.set()
        return None

    with pytest.raises(DirectoryUnavailableError):
        run(directory_of(look_up).find(ORG))

    assert ended.is_set()
    assert "directory_failed directory='Directory' error='timeout'" in caplog.text


def test_one_whose_loop_ends_has_not_failed_and_is_asked_anew(directory_of: DirectoryOf) -> None:
    gate = threading.Event()

    async def look_up(_org_id: str) -> Organization | None:
        await opened(gate)
        return GOLD

    directory = directory_of(look_up)

    async def begin() -> None:
        flow = directory.find(ORG)
        next(flow)
        flow.close()

    asyncio.run(begin())
    assert (directory.counters.failed, directory.counters.refused) == (0, 1)
    gate.set()
    assert run(directory.find(ORG)) is GOLD


def test_one_whose_loop_was_closed_without_ending_it_is_asked_anew(directory_of: DirectoryOf) -> None:
    gate = threading.Event()

    async def look_up(_org_id: str) -> Organization | None:
        await opened(gate)
        return GOLD

    directory = directory_of(look_up)

    async def begin() -> None:
        flow = directory.find(ORG)
        next(flow)
        flow.close()
        [task] = asyncio.all_tasks() - {asyncio.current_task()}
        # Nothing ends it any more; so that Python does not complain of it when it is collected.
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other way

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    gate.set()

    assert run(directory.find(ORG)) is GOLD


def test_it_sees_nothing_of_the_call_that_asks(directory_of: DirectoryOf) -> None:
    caller = contextvars.ContextVar("caller", default="")
    seen: list[str] = []

    async def look_up(_org_id: str) -> Organization | None:
        seen.append(caller.get())
        return GOLD

    async def serve() -> None:
        caller.set("acme")
        await arun(directory_of(look_up).find(ORG))

    asyncio.run(serve())
    assert seen == [""]


def test_closing_ends_what_is_under_way(directory_of: DirectoryOf) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def look_up(_org_id: str) -> Organization | None:
        begun.set()
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            ended.set()
        return None

    directory = directory_of(look_up)
    flow = directory.find(ORG)
    next(flow)
    assert begun.wait(PATIENCE)
    directory.close()

    eventually(ended.is_set)
    assert (directory.counters.failed, directory.counters.refused) == (0, 1)
    flow.close()
