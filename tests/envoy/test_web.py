"""What a client can cost that connects to the ports for operators, and then takes its time."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.responses import Response

from authz.envoy.operations import web

PATIENCE = 20.0
HEAD = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n"
WHOLE = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
MANY = 200

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Connection]]


def serve(story: Callable[[Connect], Awaitable[Any]], *, connection_seconds: float, answer: bytes = b"here") -> Any:
    """Run a story that connects to a server."""
    lasting = {"connection_seconds": connection_seconds}

    async def serving() -> Any:
        async with (
            web.serving(Response(answer), "127.0.0.1:0", setting="admin", event="admin", **lasting) as address,
            contextlib.AsyncExitStack() as ending,
        ):

            async def connect() -> Connection:
                host, _, port = address.rpartition(":")
                reader, writer = await asyncio.open_connection(host, int(port))
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


def test_connections_are_bounded_and_those_there_are_live_on() -> None:
    async def story(connect: Connect) -> bytes:
        reader, writer = await connect()
        others = [await connect() for _ in range(MANY)]
        # The last ones are ended long before their time.
        await asyncio.gather(*(rest_of(other) for other, _ in others[-50:]))
        writer.write(WHOLE)
        return await rest_of(reader)

    # There may be so few because others are busy: then it says so.
    assert serve(story, connection_seconds=3600.0).startswith(b"HTTP/1.1 503 ")
