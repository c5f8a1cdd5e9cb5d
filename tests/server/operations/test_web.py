"""What a client can cost that connects to the ports for operators, and then takes its time."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import ASGIApp

from authz.server.operations import web
from authz.server.operations.connections import BURST_OF_TURNS, MAX_CONNECTIONS, MAX_PER_PEER, TURNS_PER_SECOND

PATIENCE = 120.0
HEAD = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n"
WHOLE = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
MANY = 200

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[..., Awaitable[Connection]]


def serve(
    story: Callable[[Connect], Awaitable[Any]],
    *,
    connection_seconds: float,
    answer: bytes = b"here",
    app: ASGIApp | None = None,
) -> Any:
    """Run a story that connects to a server."""
    lasting = {"connection_seconds": connection_seconds}

    async def serving() -> Any:
        async with (
            web.serving(app or Response(answer), "127.0.0.1:0", setting="admin", event="admin", **lasting) as address,
            contextlib.AsyncExitStack() as ending,
        ):

            async def connect(peer: str = "127.0.0.1") -> Connection:
                host, _, port = address.rpartition(":")
                reader, writer = await asyncio.open_connection(host, int(port), local_addr=(peer, 0))
                ending.callback(writer.close)
                return reader, writer

            return await asyncio.wait_for(story(connect), PATIENCE)

    return asyncio.run(serving())


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the server ends the connection."""
    with contextlib.suppress(ConnectionError):
        return await reader.read()
    return b""


@pytest.mark.parametrize("sent", [b"", HEAD[:20]], ids=["nothing", "half a head"])
def test_connection_of_whoever_asks_nothing_is_ended(sent: bytes) -> None:
    async def story(connect: Connect) -> bytes:
        reader, writer = await connect()
        writer.write(sent)
        return await rest_of(reader)

    assert serve(story, connection_seconds=0.1) == b""


@pytest.mark.parametrize("reads", [True, False])
def test_drops_of_a_body_keep_no_connection_open(*, reads: bool) -> None:
    async def story(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(HEAD)
        reading = asyncio.create_task(rest_of(reader)) if reads else None
        with contextlib.suppress(ConnectionError):
            while reading is None or not reading.done():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)

    # More than a connection holds on its way.
    serve(story, connection_seconds=0.1, answer=bytes(50_000_000))


# ---- Many connections ----

KINDS = {
    "silent": b"",
    "half a head": HEAD[:20],
    "half a body": HEAD,
    "idle": b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "does not read": b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n" * 200,
}
# All of 127.0.0.0/8 is this machine.
PEERS = [f"127.0.0.{number}" for number in range(2, 12)]


@pytest.mark.parametrize("peers", [PEERS[:1], PEERS], ids=["one peer", "many peers"])
@pytest.mark.parametrize("sent", KINDS.values(), ids=KINDS)
def test_who_connects_is_answered_however_many_are_there(sent: bytes, peers: list[str]) -> None:
    async def story(connect: Connect) -> list[bytes]:
        for number in range(MANY):
            _, writer = await connect(peers[number % len(peers)])
            writer.write(sent)
        answers = []
        # Of a peer of its own, and of one that others share.
        for peer in ("127.0.0.1", peers[0]):
            reader, writer = await connect(peer)
            writer.write(WHOLE)
            answers.append(await rest_of(reader))
        return answers

    assert [answer[:13] for answer in serve(story, connection_seconds=3600.0)] == [b"HTTP/1.1 200 "] * 2


@pytest.mark.parametrize(("peers", "most"), [(PEERS[:1], MAX_PER_PEER), (PEERS, MAX_CONNECTIONS)])
def test_connections_are_few_and_fewer_of_one_peer(peers: list[str], most: int) -> None:
    async def story(connect: Connect) -> int:
        readers = [(await connect(peers[number % len(peers)]))[0] for number in range(MANY)]
        ends = [asyncio.create_task(rest_of(reader)) for reader in readers]
        while sum(end.done() for end in ends) < MANY - most:  # noqa: ASYNC110 - no end is the last
            await asyncio.sleep(0.01)
        reader, writer = await connect("127.0.0.99")
        writer.write(WHOLE)
        await rest_of(reader)
        left = [end for end in ends if not end.done()]
        assert not ends[-1].done()
        for end in left:
            end.cancel()
        return len(left)

    # Where there are as many as may be of all, the one that asked last has taken the place of another.
    assert serve(story, connection_seconds=3600.0) == most - (most == MAX_CONNECTIONS)


def test_idle_one_makes_room_and_not_one_that_is_being_answered() -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        asked.set()
        await may_answer.wait()
        await Response(b"here")(scope, receive, send)

    async def story(connect: Connect) -> bytes:
        reader, writer = await connect()
        writer.write(WHOLE)
        await asked.wait()
        others = [await connect() for _ in range(MANY)]
        await rest_of(others[0][0])
        may_answer.set()
        return await rest_of(reader)

    assert serve(story, connection_seconds=3600.0, app=slow).endswith(b"here")


def test_floods_of_requests_are_answered_at_a_bounded_pace_and_in_turn() -> None:
    answered = 0

    async def count(scope: Any, receive: Any, send: Any) -> None:
        nonlocal answered
        answered += 1
        await Response(b"")(scope, receive, send)

    async def story(connect: Connect) -> int:
        began = asyncio.get_running_loop().time()
        for _ in range(MAX_PER_PEER):
            reader, writer = await connect(PEERS[0])
            # Far more than is answered in the meantime.
            writer.write(KINDS["idle"] * 1000)
        while answered < 2 * TURNS_PER_SECOND:  # noqa: ASYNC110 - the server sends no event
            await asyncio.sleep(0.01)
        before = answered
        reader, writer = await connect()
        writer.write(WHOLE)
        await reader.readuntil(b" 200 ")
        seconds = asyncio.get_running_loop().time() - began
        assert answered <= BURST_OF_TURNS + seconds * TURNS_PER_SECOND + 1
        return answered - before

    # Each of the others goes before it once at the most; on a busy machine some go on while it connects.
    assert serve(story, connection_seconds=3600.0, app=count) <= 3 * MAX_PER_PEER
