"""What a worker may say to its supervisor, or fail to say: nothing of it harms the supervisor."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from authz.judge.orders.operator import Operator
from authz.judge.orders.order import Order
from authz.judge.orders.standing import Standing
from authz.judge.streams import OpenStreams
from authz.runtime.clock import SYSTEM_CLOCK
from authz.server.workers.child import Child
from authz.server.workers.links import Links
from authz.server.workers.words import MAX_TEXT

PATIENCE = 120.0
# What every one of these workers begins with; it says what it says by its socket alone.
BEGIN = (
    "import json, os, socket, sys, time\n"
    "link = socket.socket(fileno=json.loads(os.environ['_AUTHZ_WORKER'])['link'])\n"
    "def say(what): link.sendall(json.dumps(what).encode() + b'\\n')\n"
)
ALIVE = "say({'silent': 0, 'able': True, 'listening': True})\n"
FOR_EVER = "time.sleep(3600)\n"
# Far more than any worker has to say in a lifetime.
FLOOD = 4_000_000


async def start(program: str, *, hung_after: float = PATIENCE) -> Child:
    command = (sys.executable, "-S", "-c", BEGIN + program)
    return await Child.start(command, 0, [], variables={}, changed=lambda: None, hung_after=hung_after)


def tell(program: str, story: Callable[[Child], Awaitable[Any]], *, hung_after: float = PATIENCE) -> Any:
    """Run a worker, and a story about it."""

    async def told() -> Any:
        child = await start(program, hung_after=hung_after)
        try:
            return await asyncio.wait_for(story(child), PATIENCE)
        finally:
            child.kill()
            await child.ended

    return asyncio.run(told())


async def end_of(child: Child) -> int:
    return await child.ended


NONSENSE = {
    "oversized": "link.sendall(b'{\"error\": \"' + b'x' * 200_000 + b'\"}\\n')\n",
    "binary": "link.sendall(bytes(range(256)) * 300 + b'\\n')\n",
    "no objects": 'link.sendall(b\'[]\\nnull\\n7\\n"able"\\n[{"able": false}]\\n\')\n',
    "wrong types": "say({'able': 'yes', 'listening': 1, 'unready': None, 'stale': [], 'error': {}, 'silent': True})\n",
    "no numbers": "for one in (b'NaN', b'-1', b'1' + b'0' * 4000): link.sendall(b'{\"silent\": %s}\\n' % one)\n",
    "unknown names": "say({'abel': True, 'kill': 'all', '': 0})\n",
    "depth": "link.sendall(b'[' * 15_000 + b'\\n' + b'{\"able\":' * 1_500 + b'\\n')\n",
    "blank": "link.sendall(b'\\n\\r\\n \\n\\n')\n",
    "surrogates": 'link.sendall(b\'{"unready": "\\\\ud800"}\\n\')\n',
}


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
def test_what_makes_no_sense_is_passed_over_and_the_rest_is_heard(nonsense: str) -> None:
    said = "say({'unready': '', 'error': 'one line', 'stale': True})\n"
    program = f"{nonsense}{ALIVE}{nonsense}{said}{nonsense.replace('unready', 'never')}link.close(); sys.exit(7)\n"

    async def story(child: Child) -> Any:
        return await child.ended, child.is_able, child.is_listening, child.unready, child.is_stale, child.error

    assert tell(program, story) == (7, True, True, "", True, "one line")


@pytest.mark.parametrize("length", [70_000, 2 * MAX_TEXT])
def test_error_is_cut_to_a_line(length: int) -> None:
    said = {70_000: "x" * 70_000, 2 * MAX_TEXT: "one\n\x1b[2Jtwo\u2028" + "y" * 2 * MAX_TEXT}[length]

    async def story(child: Child) -> Any:
        await child.ended
        return child.error

    error = tell(f"say({{'error': {said!r}}})\n", story)

    assert len(error) <= MAX_TEXT
    assert error.isprintable()
    # What is far too long is not read at all.
    assert error.startswith("one") or length == 70_000


@pytest.mark.parametrize(
    "last_words", ['link.send(b\'{"error": "hal\')\n', "link.close()\n", "", "os.kill(os.getpid(), 9)\n"]
)
def test_end_in_the_middle_of_a_word_is_an_end(last_words: str) -> None:
    async def story(child: Child) -> Any:
        return await child.ended, child.error

    assert tell(ALIVE + last_words, story) in ((0, ""), (-9, ""))


def test_flood_costs_the_supervisor_little() -> None:
    words = 0

    def count() -> None:
        nonlocal words
        words += 1

    async def told() -> int:
        program = f"link.setblocking(True)\nfor _ in range({FLOOD}): link.send(b'{{}}\\n' * 10_000)\n"
        child = await Child.start(
            (sys.executable, "-S", "-c", BEGIN + program), 0, [], variables={}, changed=count, hung_after=PATIENCE
        )
        turns = 0
        # What shares the loop has its turns, as many as it likes.
        for _ in range(100):
            await asyncio.sleep(0.01)
            turns += 1
        child.kill()
        await child.ended
        return turns

    assert asyncio.run(told()) == 100
    # Each read is one change, however many words it had; a worker that floods is read from at a bounded pace.
    assert words < 1000


# ---- Workers that hang ----


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(ALIVE + FOR_EVER, id="stops answering"),
        pytest.param(ALIVE + "link.close()\n" + FOR_EVER, id="closes its link and lives on"),
        pytest.param(ALIVE + "while True: link.send(b'x\\n'); time.sleep(0.01)\n", id="says nothing of use"),
        pytest.param(ALIVE + "while True: say({'silent': 1e308}); time.sleep(0.01)\n", id="says that a thread hangs"),
        pytest.param(
            "say({'silent': 0})\nwhile True: say({'able': True}); time.sleep(0.01)\n", id="never says that it lives"
        ),
    ],
)
def test_worker_that_hangs_is_ended(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz.server.workers.silence.START_SECONDS", 1.0)

    async def story(child: Child) -> Any:
        return await child.ended, child.is_hung

    assert tell(program, story, hung_after=1.0) == (-9, True)


def test_worker_that_never_says_anything_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz.server.workers.silence.START_SECONDS", 1.0)

    async def story(child: Child) -> Any:
        return await child.ended, child.is_hung

    assert tell(FOR_EVER, story, hung_after=0.5) == (-9, True)


# ---- Workers that no order reaches ----

ORDERS = "orders = socket.socket(fileno=json.loads(os.environ['_AUTHZ_WORKER'])['orders'])\n"


@pytest.mark.parametrize("last_words", ["orders.send(b'nonsense\\n')\n", "orders.close()\n"], ids=["broken", "closed"])
def test_worker_that_hears_no_orders_any_more_is_ended(last_words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz.server.workers.link._END_SECONDS", 0.1)
    program = BEGIN + ORDERS + ALIVE + last_words

    async def told() -> tuple[int, bool]:
        async with Links(Operator(Standing(), OpenStreams(), clock=SYSTEM_CLOCK)) as links:
            child = await Child.start(
                (sys.executable, "-S", "-c", program + FOR_EVER),
                0,
                [],
                variables={},
                changed=lambda: None,
                hung_after=PATIENCE,
                links=links,
            )
            return await asyncio.wait_for(child.ended, PATIENCE), child.is_hung

    assert asyncio.run(told()) == (-9, True)


def test_worker_that_does_not_obey_is_dead_when_the_giver_of_the_order_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("authz.server.workers.link.ORDER_SECONDS", 0.5)
    hello = 'orders.send(b\'{"number": -1, "answer": null}\\n\')\n'
    command = (sys.executable, "-S", "-c", BEGIN + ORDERS + ALIVE + hello + FOR_EVER)
    operator = Operator(Standing(), OpenStreams(), clock=SYSTEM_CLOCK)

    async def told() -> tuple[bool, int]:
        async with Links(operator) as links:
            child = await Child.start(
                command, 0, [], variables={}, changed=lambda: None, hung_after=PATIENCE, links=links
            )
            while not links.ready:  # noqa: ASYNC110 - another process tells nobody
                await asyncio.sleep(0.01)
            await asyncio.to_thread(operator.order, Order("suspend", "organization", "org_1"))
            return child.ended.done() or await asyncio.wait_for(child.ended, 1.0) is not None, await child.ended

    assert asyncio.run(asyncio.wait_for(told(), PATIENCE)) == (True, -9)
