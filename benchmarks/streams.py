"""What open streams that wait take of a server's memory: what grpc itself takes for each, and what interceptors add.

On a synchronous server each of them holds a thread as well, whatever its interceptors are.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

import grpc.aio

from benchmarks.material import claims, signing_key
from benchmarks.processes import Server, running
from benchmarks.server import WAIT

SERVERS = {
    "aio": {"bare": "aio", "only wraps": "aio-wrapped-streams", "ours": "aio-authz"},
    "sync": {"bare": "sync-streams", "only wraps": "sync-wrapped-streams", "ours": "sync-authz-streams"},
}
STREAMS = {"aio": (100, 1_000, 10_000), "sync": (100, 1_000, 3_000)}
"""How many are open; fewer where each holds a thread."""

CONNECTIONS, AT_ONCE, WARM, IDLE_SECONDS = 20, 100, 200, 2

Metadata = tuple[tuple[str, str], ...]


def measure() -> dict[str, object]:
    """Return bytes per stream by kind of server and number of streams, and what ours adds to a bare one."""
    return {
        kind: _compared({name: asyncio.run(_grown(each, STREAMS[kind])) for name, each in servers.items()})
        for kind, servers in SERVERS.items()
    }


def _compared(servers: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, object]:
    bare = servers["bare"]
    above = {
        name: {number: row["bytes per stream"] - bare[number]["bytes per stream"] for number, row in rows.items()}
        for name, rows in servers.items()
        if name != "bare"
    }
    return {**servers, "bytes per stream above a bare server": above}


async def _grown(kind: str, numbers: Sequence[int]) -> dict[str, dict[str, float]]:
    metadata = (("authorization", f"Bearer {signing_key().sign(claims())}"),)
    figures: dict[str, dict[str, float]] = {}
    async with AsyncExitStack() as stack:
        server = stack.enter_context(running(kind))
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(server.address, options=options))
            for _ in range(CONNECTIONS)
        ]
        # What each connection takes, and what the first streams allocate for all, is not counted.
        opened = await _open(channels, WARM, metadata)
        before, threads = server.resident, server.threads
        for number in numbers:
            opened += await _open(channels, number + WARM - len(opened), metadata)
            more = server.resident - before
            figures[f"{number:,}"] = {
                "bytes per stream": more // number,
                "MB": round(more / 2**20, 1),
                "threads more": server.threads - threads,
            }
        figures[f"{numbers[-1]:,}"]["CPU ms while they wait 2 s"] = await _idle(server)
    return figures


async def _open(
    channels: Sequence[grpc.aio.Channel], number: int, metadata: Metadata
) -> list[grpc.aio.StreamStreamCall]:
    few = asyncio.Semaphore(AT_ONCE)

    async def one(place: int) -> grpc.aio.StreamStreamCall:
        async with few:
            call = channels[place % CONNECTIONS].stream_stream(WAIT)(metadata=metadata)
            await call.read()
            return call

    return await asyncio.gather(*(one(place) for place in range(number)))


async def _idle(server: Server) -> int:
    before = server.cpu
    await asyncio.sleep(IDLE_SECONDS)
    return round((server.cpu - before) * 1000)
