"""Both ends of a worker's link in one loop: what is in force is obeyed first, and nobody waits long."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from authz.errors import UnavailableError
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.policy import Policy
from authz.server.admin.activity import Activity
from authz.server.admin.backend import Order, Question
from authz.server.admin.many_workers import Workers
from authz.server.admin.news import News
from authz.server.admin.one_process import OwnProcess
from authz.server.admin.worker_link import WorkerLink, answering_supervisor
from tests.decisions.samples import decision
from tests.doubles import ORG

PATIENCE = 120.0

NewAuthorizer = Callable[[], Authorizer]


@pytest.fixture
def new_authorizer(new_verifier: Callable[..., Verifier]) -> NewAuthorizer:
    """Return a function that builds the judge of one worker."""
    return lambda: Authorizer(new_verifier(), observers=[Activity()])


@contextlib.asynccontextmanager
async def worker(workers: Workers, number: int, authorizer: Authorizer, seen: int = 0) -> AsyncIterator[None]:
    """Be a worker of ``workers`` that has made so many decisions."""
    activity = Activity()
    for _ in range(seen):
        activity(decision())
    async with workers.link(number) as (its, _):
        # As a process that was started with it: the supervisor closes its copy.
        ours = socket.socket(fileno=its.detach())
    async with answering_supervisor(ours, OwnProcess(authorizer, activity, worker=number)):
        await until(lambda: has_answered(workers, number))
        yield


async def has_answered(workers: Workers, number: int) -> bool:
    return number in {each["number"] for each in (await workers.overview())["workers"]}


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 - another process, as it were, tells nobody
            await asyncio.sleep(0.01)


def run(work: Awaitable[Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, PATIENCE))


def test_whoever_starts_later_obeys_what_is_in_force(new_authorizer: NewAuthorizer) -> None:
    first, second = new_authorizer(), new_authorizer()

    async def story() -> dict[str, Any]:
        async with Workers() as workers, worker(workers, 0, first):
            await workers.order(Order("suspend", ORG))
            await workers.order(Order("suspend", "org_forgiven"))
            await workers.order(Order("revoke", "client_1"))
            await workers.order(Order("resume", "org_forgiven"))
            async with worker(workers, 1, second):
                done = await workers.order(Order("suspend", "org_late"))
        return done

    done = run(story())

    assert (done["workers"], done["pending"]) == (2, 0)
    for authorizer in (first, second):
        assert authorizer.standing.suspended_organizations == [ORG, "org_late"]
        assert authorizer.standing.revoked_clients == ["client_1"]


def test_order_reaches_a_worker_that_is_only_starting(new_authorizer: NewAuthorizer) -> None:
    authorizer = new_authorizer()

    async def story() -> dict[str, Any]:
        async with Workers() as workers:
            async with workers.link(0) as (its, _):
                ours = socket.socket(fileno=its.detach())
            done = await workers.order(Order("suspend", ORG))
            async with answering_supervisor(ours, OwnProcess(authorizer, Activity())):
                await until(lambda: has_answered(workers, 0))
        return done

    done = run(story())

    assert (done["workers"], done["pending"]) == (0, 1)
    assert authorizer.standing.suspended_organizations == [ORG]


def test_worker_that_hears_nothing_does_not_start(new_authorizer: NewAuthorizer) -> None:
    async def story() -> None:
        ours, its = socket.socketpair()
        ours.close()
        async with answering_supervisor(its, OwnProcess(new_authorizer(), Activity())):
            pytest.fail("nobody could say what is in force")

    with pytest.raises(ConnectionError):
        run(story())


def test_answers_are_added_up(new_authorizer: NewAuthorizer) -> None:
    async def story() -> tuple[Any, Any, Any]:
        one, other = new_authorizer(), new_authorizer()
        async with Workers() as workers, worker(workers, 0, one, seen=2), worker(workers, 1, other, seen=3):
            overview, told = await workers.overview(), News(await workers.decisions())
            news = json.loads(told.after(""))
        return overview, news, json.loads(told.after(news["cursor"]))

    overview, news, later = run(story())
    [organization], [(_, allowed, _)] = overview["organizations"], overview["pace"]

    assert (overview["totals"]["allowed"], organization["allowed"], allowed) == (5, 5, 5)
    assert (organization["clients"], organization["known"]) == ({"client_01JYPARTNER": 5}, {})
    assert (len(news["decisions"]), later["decisions"], later["missed"]) == (5, [], 0)


def test_worker_that_does_not_answer_is_left_out_and_told_of(new_authorizer: NewAuthorizer) -> None:
    async def story() -> Any:
        async with Workers(patience=0.2) as workers, worker(workers, 0, new_authorizer()), workers.link(1) as (its, _):
            # It obeys, and then it hangs.
            its.send(b'{"number": -1, "answer": null}\n')
            await until(lambda: is_silent(workers))
            return await workers.overview()

    overview = run(story())

    assert ([each["number"] for each in overview["workers"]], overview["silent"]) == ([0], 1)


def test_answer_that_is_too_long_ends_neither_link_nor_worker(new_verifier: Callable[..., Verifier]) -> None:
    # The names of those that are told are together longer than a line.
    rules = [{"name": f"{number:010000}", "request": {"paths": [f"/{number}"]}} for number in range(1000)]
    policy = Policy.from_document({"name": "long", "allow_rules": rules})

    async def story() -> tuple[Any, Any]:
        async with Workers() as workers, worker(workers, 0, Authorizer(new_verifier(), policy=policy)):
            with pytest.raises(UnavailableError):
                await workers.policy()
            return await workers.overview(), await workers.order(Order("suspend", ORG))

    overview, ordered = run(story())

    assert (len(overview["workers"]), overview["silent"]) == (1, 0)
    assert (ordered["workers"], ordered["pending"]) == (1, 0)


NONSENSE = {
    "no object": b"[]\n",
    "no number": b'{"answer": {}}\n',
    "a number that is none": b'{"number": [], "answer": {}}\n',
    "an answer that is none": b'{"number": 0, "answer": 7}\n',
    "an answer without a question": b'{"number": 99, "answer": {}}\n',
    "binary": bytes(range(256)) + b"\n",
    "depth": b"[" * 100_000 + b"\n",
    "oversized": b'{"number": 0, "answer": {"": "' + b"x" * 9_000_000 + b'"}}\n',
    "ready twice": b'{"number": -1, "answer": null}\n',
}


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
def test_worker_that_makes_no_sense_is_parted_with_and_the_others_go_on(
    new_authorizer: NewAuthorizer, nonsense: bytes
) -> None:
    async def story() -> Any:
        async with Workers(patience=5.0) as workers, worker(workers, 0, new_authorizer()):
            async with workers.link(1) as (its, link):
                its.settimeout(0)
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(its, b'{"number": -1, "answer": null}\n')
                await until(lambda: is_ready(link))
                with contextlib.suppress(ConnectionError):
                    await loop.sock_sendall(its, nonsense)
                # For one that is asked and answers with nonsense the others do not wait.
                overview = await workers.overview()
                await link.lost()
            ordered = await workers.order(Order("suspend", ORG))
        return overview, link.is_broken, ordered

    overview, is_broken, ordered = run(story())

    assert [each["number"] for each in overview["workers"]] == [0]
    assert is_broken
    assert (ordered["workers"], ordered["pending"]) == (1, 0)


async def is_ready(link: WorkerLink) -> bool:
    return link.is_ready


SHAPES: dict[str, list[Any]] = {
    "overview": [{}, {"workers": 1}, None, {"totals": {"allowed": "many"}}],
    "decisions": [{}, {"decisions": [{"time": "now", "id": ""}], "cursor": ""}, {"decisions": [7], "cursor": ""}],
    "policy": [{"policy": "p"}, {"policy": 7}, {"policy": "p", "since": 0, "rules": [{"list": "", "name": []}]}],
    "order": [{"by_policy": "yes"}, {}],
}


@pytest.mark.parametrize("what", SHAPES)
def test_answer_of_another_shape_is_none(new_authorizer: NewAuthorizer, what: str) -> None:
    async def answering(its: socket.socket, answers: list[Any]) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=its)
        await reader.readline()
        writer.write(b'{"number": -1, "answer": null}\n')
        for answer in answers:
            asked = json.loads(await reader.readline())
            writer.write(json.dumps({"number": asked["number"], "answer": answer}).encode() + b"\n")
        await reader.read()
        writer.close()

    async def story() -> list[Any]:
        told = []
        async with Workers() as workers, worker(workers, 0, new_authorizer()), workers.link(1) as (its, link):
            # It must not end with the block of the link, which closes this copy.
            broken = asyncio.create_task(answering(socket.socket(fileno=its.detach()), SHAPES[what]))
            await until(lambda: is_ready(link))
            for _ in SHAPES[what]:
                ask = workers.order(Order("suspend", ORG)) if what == "order" else getattr(workers, what)()
                told.append(await ask)
            await link.close()
            await broken
        return told

    told = run(story())

    if what == "overview":
        assert [(len(each["workers"]), each["silent"]) for each in told] == [(1, 1)] * len(told)
    elif what == "decisions":
        assert [each["cursor"].count(",") for each in told] == [0] * len(told)
    elif what == "order":
        assert [(each["workers"], each["pending"]) for each in told] == [(1, 1)] * len(told)
    else:
        assert told == [{"policy": None}] * len(told)


def test_questions_that_are_never_answered_do_not_pile_up() -> None:
    async def story() -> int:
        async with Workers(patience=0.0) as workers, workers.link(1) as (its, link):
            its.send(b'{"number": -1, "answer": null}\n')
            await until(lambda: is_ready(link))
            for _ in range(1000):
                await workers.overview()
            its.settimeout(0)
            return its.recv(1_000_000).count(b"overview")

    assert 0 < run(story()) <= 100


async def is_silent(workers: Workers) -> bool:
    return bool((await workers.overview())["silent"])


def test_without_workers_nobody_can_say(new_authorizer: NewAuthorizer) -> None:  # noqa: ARG001 - none is built
    async def story() -> Any:
        workers = Workers()
        for asking in (workers.policy(), workers.explain(Question("/a.B/C"))):
            with pytest.raises(UnavailableError):
                await asking
        return await workers.overview()

    assert run(story())["workers"] == []
