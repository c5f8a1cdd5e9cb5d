"""Both ends of a worker's link in one loop: what is in force is obeyed first, and nobody waits long."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

import pytest

from authz.call.principal import Principal
from authz.errors import UnavailableError
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.judge.orders.operator import Operator
from authz.judge.orders.order import Order
from authz.judge.orders.standing import Standing
from authz.judge.streams import OpenStreams
from authz.policy import Policy
from authz.runtime.clock import SYSTEM_CLOCK
from authz.server.admin.activity import Activity
from authz.server.admin.backend import Question
from authz.server.admin.many_workers import Workers
from authz.server.admin.news import News
from authz.server.admin.one_process import OwnProcess
from authz.server.workers.link import WorkerLink, answering_supervisor
from authz.server.workers.links import ANSWER_SECONDS, Links
from tests.decisions.samples import decision
from tests.doubles import ORG

PATIENCE = 120.0
HELLO = b'{"number": -1, "answer": null}\n'

NewAuthorizer = Callable[[], Authorizer]


@pytest.fixture
def new_authorizer(new_verifier: Callable[..., Verifier]) -> NewAuthorizer:
    """Return a function that builds the judge of one worker."""
    return lambda: Authorizer(new_verifier(), observers=[Activity()])


class Supervisor(Workers):
    """A supervisor without processes; an asynchronous context manager."""

    def __init__(self, patience: float = ANSWER_SECONDS) -> None:
        self.operator = Operator(Standing(), OpenStreams(), clock=SYSTEM_CLOCK)
        self.links = Links(self.operator, patience=patience)
        super().__init__(self.links, self.operator)

    async def __aenter__(self) -> Self:
        await self.links.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.links.__aexit__()


def suspend(name: str) -> Order:
    return Order("suspend", "organization", name)


@contextlib.asynccontextmanager
async def worker(workers: Supervisor, number: int, authorizer: Authorizer, seen: int = 0) -> AsyncIterator[None]:
    """Be a worker of ``workers`` that has made so many decisions."""
    activity = Activity()
    for _ in range(seen):
        activity(decision())
    async with workers.links.link(number) as (its, _):
        # As a process that was started with it: the supervisor closes its copy.
        ours = socket.socket(fileno=its.detach())
    async with answering_supervisor(ours, authorizer.operator, OwnProcess(authorizer, activity, worker=number).answer):
        await until(lambda: has_answered(workers, number))
        yield


async def has_answered(workers: Supervisor, number: int) -> bool:
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
        async with Supervisor() as workers, worker(workers, 0, first):
            await workers.order(suspend(ORG))
            await workers.order(suspend("org_forgiven"))
            await workers.order(Order("revoke", "client", "client_1"))
            await workers.order(Order("resume", "organization", "org_forgiven"))
            async with worker(workers, 1, second):
                done = await workers.order(suspend("org_late"))
        return done

    done = run(story())

    assert (done["workers"], done["pending"]) == (2, 0)
    for authorizer in (first, second):
        assert authorizer.standing.suspended_organizations == {ORG, "org_late"}
        assert authorizer.standing.revoked_clients == {"client_1"}


def test_order_reaches_a_worker_that_is_only_starting(new_authorizer: NewAuthorizer) -> None:
    authorizer = new_authorizer()

    async def story() -> dict[str, Any]:
        async with Supervisor() as workers:
            async with workers.links.link(0) as (its, _):
                ours = socket.socket(fileno=its.detach())
            done = await workers.order(suspend(ORG))
            async with answering_supervisor(ours, authorizer.operator, OwnProcess(authorizer, Activity()).answer):
                await until(lambda: has_answered(workers, 0))
        return done

    done = run(story())

    assert (done["workers"], done["pending"]) == (0, 1)
    assert authorizer.standing.suspended_organizations == {ORG}


def test_every_worker_learns_what_applications_are_called_whenever_it_starts(new_authorizer: NewAuthorizer) -> None:
    first, second = new_authorizer(), new_authorizer()
    names = {f"client_{number}": f"Application {number}" for number in range(1050)}

    async def story() -> None:
        async with Supervisor() as workers, worker(workers, 0, first):
            await asyncio.to_thread(workers.links.tell_names, names)
            async with worker(workers, 1, second):
                await until(lambda: are_known(first, second, count=1050))
                await asyncio.to_thread(workers.links.tell_names, {"client_0": "", "client_1": "Tills"})
                await until(lambda: are_known(first, second, count=1049))
                await workers.order(suspend(ORG))

    run(story())

    for authorizer in (first, second):
        callers = [Principal(org_id="o", client_id=f"client_{number}", subject="") for number in range(3)]
        assert [*map(authorizer.telling.client_names.of, callers)] == ["", "Tills", "Application 2"]


async def are_known(*authorizers: Authorizer, count: int) -> bool:
    return all(len(each.telling.client_names) == count for each in authorizers)


def test_worker_that_hears_nothing_does_not_start(new_authorizer: NewAuthorizer) -> None:
    async def story() -> None:
        ours, its = socket.socketpair()
        ours.close()
        authorizer = new_authorizer()
        async with answering_supervisor(its, authorizer.operator, OwnProcess(authorizer, Activity()).answer):
            pytest.fail("nobody could say what is in force")

    with pytest.raises(ConnectionError):
        run(story())


def test_answers_are_added_up(new_authorizer: NewAuthorizer) -> None:
    async def story() -> tuple[Any, Any, Any]:
        one, other = new_authorizer(), new_authorizer()
        async with Supervisor() as workers, worker(workers, 0, one, seen=2), worker(workers, 1, other, seen=3):
            overview, told = await workers.overview(), News(await workers.decisions())
            news = json.loads(told.after(""))
        return overview, news, json.loads(told.after(news["cursor"]))

    overview, news, later = run(story())
    [organization], [(_, allowed, _)] = overview["organizations"], overview["pace"]

    assert (overview["totals"]["allowed"], organization["allowed"], allowed) == (5, 5, 5)
    assert (organization["clients"], organization["known"]) == ({"client_01JYPARTNER": 5}, {})
    assert (len(news["decisions"]), later["decisions"], later["missed"]) == (5, [], 0)


def test_names_come_from_the_workers(new_authorizer: NewAuthorizer) -> None:
    policy = Policy.from_document(
        {
            "name": "p",
            "allow_rules": [{"name": "r"}],
            "organizations": {ORG: {"name": "Acme", "tenant": "t-1"}, "org_01JYACME": {"tenant": "t-2"}},
        }
    )

    async def story() -> tuple[Any, Any]:
        one, other = new_authorizer(), new_authorizer()
        for authorizer in (one, other):
            authorizer.replace_policy(policy)
        async with Supervisor() as workers, worker(workers, 0, one, seen=1), worker(workers, 1, other, seen=1):
            await workers.order(suspend(ORG))
            return await workers.overview(), await workers.decisions()

    overview, told = run(story())

    assert overview["names"] == {ORG: {"name": "Acme", "tenant": "t-1"}}
    assert {each["organization"]: each["called"] for each in told["decisions"]} == {"org_01JYACME": {"tenant": "t-2"}}


def test_worker_that_does_not_answer_is_left_out_and_told_of(new_authorizer: NewAuthorizer) -> None:
    async def story() -> Any:
        async with (
            Supervisor(patience=0.2) as workers,
            worker(workers, 0, new_authorizer()),
            workers.links.link(1) as (its, _),
        ):
            # It obeys, and then it hangs.
            its.send(HELLO)
            await until(lambda: is_silent(workers))
            return await workers.overview()

    overview = run(story())

    assert ([each["number"] for each in overview["workers"]], overview["silent"]) == ([0], 1)


def test_answer_that_is_too_long_ends_neither_link_nor_worker(
    new_verifier: Callable[..., Verifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A worker that has lost its link ends itself, which here is the process of this test.
    ended: list[object] = []
    monkeypatch.setattr("authz.server.workers.link.os.kill", lambda *what: ended.append(what))
    # The names of those that are told are together longer than a line.
    rules = [{"name": f"{number:010000}", "request": {"paths": [f"/{number}"]}} for number in range(1000)]
    policy = Policy.from_document({"name": "long", "allow_rules": rules})

    async def story() -> tuple[Any, Any]:
        async with Supervisor() as workers, worker(workers, 0, Authorizer(new_verifier(), policy=policy)):
            with pytest.raises(UnavailableError):
                await workers.policy()
            return await workers.overview(), await workers.order(suspend(ORG))

    overview, ordered = run(story())

    assert ended == []
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
    "hello twice": HELLO,
}


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
def test_worker_that_makes_no_sense_is_parted_with_and_the_others_go_on(
    new_authorizer: NewAuthorizer, nonsense: bytes
) -> None:
    async def story() -> Any:
        async with Supervisor(patience=5.0) as workers, worker(workers, 0, new_authorizer()):
            async with workers.links.link(1) as (its, link):
                its.settimeout(0)
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(its, HELLO)
                await until(lambda: is_ready(link))
                with contextlib.suppress(ConnectionError):
                    await loop.sock_sendall(its, nonsense)
                # For one that is asked and answers with nonsense the others do not wait.
                overview = await workers.overview()
                await link.lost()
            ordered = await workers.order(suspend(ORG))
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
    "suspends": [{"by_policy": "yes"}, {}, None],
}


@pytest.mark.parametrize("what", SHAPES)
def test_answer_of_another_shape_is_none(new_authorizer: NewAuthorizer, what: str) -> None:
    async def answering(its: socket.socket, answers: list[Any]) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=its)
        writer.write(HELLO)
        left = iter(answers)
        async for line in reader:
            asked = json.loads(line)
            if "number" in asked:
                answer = {} if asked["what"] in {"carry_out", "doubt"} else next(left)
                writer.write(json.dumps({"number": asked["number"], "answer": answer}).encode() + b"\n")
        writer.close()

    async def story() -> list[Any]:
        told = []
        async with Supervisor() as workers, worker(workers, 0, new_authorizer()), workers.links.link(1) as (its, link):
            # It must not end with the block of the link, which closes this copy.
            broken = asyncio.create_task(answering(socket.socket(fileno=its.detach()), SHAPES[what]))
            await until(lambda: is_ready(link))
            for _ in SHAPES[what]:
                ask = workers.order(suspend(ORG)) if what == "suspends" else getattr(workers, what)()
                told.append(await ask)
            await link.close()
            await broken
        return told

    told = run(story())

    if what == "overview":
        assert [(len(each["workers"]), each["silent"]) for each in told] == [(1, 1)] * len(told)
    elif what == "decisions":
        assert [each["cursor"].count(",") for each in told] == [0] * len(told)
    elif what == "suspends":
        assert told == [{"by_policy": False, "workers": 2, "pending": 0}] * len(told)
    else:
        assert told == [{"policy": None}] * len(told)


def test_questions_that_are_never_answered_do_not_pile_up() -> None:
    async def story() -> int:
        async with Supervisor(patience=0.0) as workers, workers.links.link(1) as (its, link):
            its.send(HELLO)
            await until(lambda: is_ready(link))
            for _ in range(1000):
                await workers.overview()
            its.settimeout(0)
            return its.recv(1_000_000).count(b"overview")

    assert 0 < run(story()) <= 100


# ---- Orders ----


async def lines_of(its: socket.socket, answers: Callable[[dict[str, Any]], object]) -> list[dict[str, Any]]:
    """Be a worker that says hello, and answers each question as told; return what it hears until it may go on."""
    reader, writer = await asyncio.open_unix_connection(sock=its, limit=2**20)
    writer.write(HELLO)
    heard: list[dict[str, Any]] = []
    try:
        async for line in reader:
            heard.append(json.loads(line))
            if "go" in heard[-1]:
                return heard
            answer = answers(heard[-1])
            writer.write(json.dumps({"number": heard[-1]["number"], "answer": answer}).encode() + b"\n")
        return heard
    finally:
        writer.close()


def orders_in(heard: list[dict[str, Any]]) -> list[str]:
    said = [line["arguments"][0] for line in heard if line.get("what") == "carry_out"]
    return [json.loads(text)["id"] for orders in said for _, text in orders]


def test_order_that_is_given_while_a_worker_is_told_is_heard_before_it_may_listen() -> None:
    async def story() -> tuple[list[str], bool]:
        async with Supervisor() as workers, workers.links.link(0) as (its, link):
            await workers.order(suspend("org_early"))

            async def held_up() -> list[dict[str, Any]]:
                reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=its.detach()))
                writer.write(HELLO)
                first = json.loads(await reader.readline())
                # Answered by the supervisor, although this worker has not said a word yet.
                done = await workers.order(suspend("org_meanwhile"))
                was_ready = link.is_ready
                assert (done["workers"], done["pending"], was_ready) == (0, 1, False)
                writer.write(json.dumps({"number": first["number"], "answer": {}}).encode() + b"\n")
                heard = [first]
                while heard[-1] != {"go": True}:
                    heard.append(json.loads(await reader.readline()))
                writer.close()
                return heard

            heard = await held_up()
            return orders_in(heard), heard[-1] == {"go": True}

    assert run(story()) == (["org_early", "org_meanwhile"], True)


def test_worker_is_told_all_orders_and_tokens_in_short_lines(new_authorizer: NewAuthorizer) -> None:
    authorizer, longest, name = new_authorizer(), "\U0001f600" * 500, "\U0001f600" * 1000

    async def story() -> int:
        async with Supervisor() as workers:
            workers.operator.standing.take(
                Order("revoke", "client", f"{name}{number}", reason=longest, by=longest, at=1) for number in range(1000)
            )
            workers.operator.standing.list_tokens((f" jti_{number}", 4e9) for number in range(2000))
            async with workers.links.link(1) as (its, _):
                heard = await lines_of(socket.socket(fileno=its.detach()), lambda _: {})
            async with worker(workers, 0, authorizer):
                return max(len(json.dumps(line)) for line in heard)

    assert run(story()) < 1_000_000
    assert (len(authorizer.operator.book), len(authorizer.operator.book.tokens)) == (1000, 2000)


def test_order_is_in_force_in_every_worker_when_its_giver_is_answered(new_authorizer: NewAuthorizer) -> None:
    authorizers = [new_authorizer() for _ in range(3)]

    async def story() -> list[list[str]]:
        async with Supervisor() as workers, contextlib.AsyncExitStack() as stack:
            for number, each in enumerate(authorizers):
                await stack.enter_async_context(worker(workers, number, each))
            # As a follower of a store does it, on its own thread.
            await asyncio.to_thread(workers.operator.carry_out, [suspend(ORG)._replace(at=1)])
            await asyncio.to_thread(workers.operator.list_tokens, [(" jti", 4e9)])
            return [
                [*each.standing.suspended_organizations, *(name for name, _ in each.operator.book.tokens)]
                for each in authorizers
            ]

    assert run(story()) == [[ORG, " jti"]] * 3


@pytest.mark.parametrize("answer", [None, {"by_policy": True}, "nothing"])
def test_worker_that_does_not_carry_out_an_order_is_parted_with(
    new_authorizer: NewAuthorizer, answer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.server.workers.link.ORDER_SECONDS", 0.2)

    async def disobey(its: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=its)
        writer.write(HELLO)
        async for line in reader:
            asked = json.loads(line)
            if asked.get("what") == "doubt":
                writer.write(json.dumps({"number": asked["number"], "answer": {}}).encode() + b"\n")
            elif "number" in asked and answer != "nothing":
                writer.write(json.dumps({"number": asked["number"], "answer": answer}).encode() + b"\n")
        writer.close()

    async def story() -> tuple[Any, bool]:
        async with Supervisor() as workers, worker(workers, 0, new_authorizer()), workers.links.link(1) as (its, link):
            disobeying = asyncio.create_task(disobey(socket.socket(fileno=its.detach())))
            await until(lambda: is_ready(link))
            ordering = asyncio.create_task(workers.order(suspend(ORG)))
            await link.lost()
            # As its supervisor says when it has killed it.
            was_waited_for = not ordering.done()
            link.ended.set()
            done = await ordering
            await disobeying
        return done, link.is_broken and was_waited_for

    done, is_parted_with = run(story())

    assert is_parted_with
    assert (done["workers"], done["pending"]) == (1, 0)


async def is_silent(workers: Supervisor) -> bool:
    return bool((await workers.overview())["silent"])


def test_without_workers_nobody_can_say(new_authorizer: NewAuthorizer) -> None:  # noqa: ARG001 - none is built
    async def story() -> Any:
        workers = Supervisor()
        for asking in (workers.policy(), workers.explain(Question("/a.B/C"))):
            with pytest.raises(UnavailableError):
                await asking
        return await workers.overview()

    assert run(story())["workers"] == []
