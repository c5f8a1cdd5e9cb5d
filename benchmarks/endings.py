"""What it costs to end the streams of one organization all at once: who waits for that, and for how long."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import quantiles

import grpc
import grpc.aio

from benchmarks.endings_server import CALL, ENDED, GIVE, WAIT
from benchmarks.material import claims, signing_key
from benchmarks.processes import Server, running

STREAMS = {"aio": 20_000, "sync": 5_000}
CONNECTIONS, AT_ONCE, SECONDS, CALLS_PER_SECOND = 20, 200, 2.0, 200

Metadata = tuple[tuple[str, str], ...]

# Another process: the one that holds the streams is busy with their ends.
_OTHER = """
import asyncio, json, sys
from benchmarks.endings import waits
print(json.dumps(asyncio.run(waits(sys.argv[1], json.loads(sys.argv[2]), float(sys.argv[3])))))
"""


def measure() -> dict[str, object]:
    """Return what each order holds its giver for, when all streams are told, and what others wait meanwhile."""
    return {
        f"{number:,} streams {kind}": {what: asyncio.run(_end(kind, number, what)) for what in ("revoke", "policy")}
        for kind, number in STREAMS.items()
    }


async def _end(kind: str, number: int, what: str) -> dict[str, object]:
    with running(kind, module="benchmarks.endings_server") as server:
        async with _open(server, number) as calls, grpc.aio.insecure_channel(server.address) as channel:
            quiet = await _other(server, SECONDS)
            beside = asyncio.create_task(_other(server, 2 * SECONDS))
            await asyncio.sleep(SECONDS)
            began, cpu = time.perf_counter(), server.cpu
            held = json.loads(await channel.unary_unary(GIVE)(what.encode()))
            await asyncio.gather(*(call.code() for call in calls))
            seconds = time.perf_counter() - began
            told = json.loads(await channel.unary_unary(ENDED)(b""))
            busy = await beside
            return {
                "giver held ms": round(held["ms"], 2),
                "told": told["told"],
                "last told s": round(told["seconds"], 2),
                "client has all statuses s": round(seconds, 2),
                "server CPU us per stream": round((server.cpu - cpu) / number * 1e6),
                "others' p99 ms quiet": _p99(quiet),
                "others' p99 ms meanwhile": _p99([wait for at, wait in busy if at >= began], of_pairs=False),
            }


def _p99(waits: list[tuple[float, float]] | list[float], *, of_pairs: bool = True) -> float:
    values = [wait[1] if of_pairs else wait for wait in waits]  # type: ignore[index]
    return round(quantiles(values, n=100)[98] * 1e3, 2)


async def _other(server: Server, seconds: float) -> list[tuple[float, float]]:
    mine = {**claims(), "org_id": "org_other", "client_id": "client_other", "sub": "client_other", "jti": "other"}
    metadata = [["authorization", f"Bearer {signing_key().sign(mine)}"]]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _OTHER, server.address, json.dumps(metadata), str(seconds)),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return [(at, wait) for at, wait in json.loads(out)]


async def waits(address: str, metadata: list[list[str]], seconds: float) -> list[tuple[float, float]]:
    """Return when calls were made, by the monotonic clock, and how long each took, in seconds."""
    told: list[tuple[float, float]] = []
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(CALL)

        async def one() -> None:
            began = time.perf_counter()
            await call(b"x", metadata=tuple((name, value) for name, value in metadata))
            told.append((began, time.perf_counter() - began))

        await one()
        told.clear()
        began = time.perf_counter()
        async with asyncio.TaskGroup() as calls:
            for number in range(int(seconds * CALLS_PER_SECOND)):
                await asyncio.sleep(began + number / CALLS_PER_SECOND - time.perf_counter())
                calls.create_task(one())
    return told


@asynccontextmanager
async def _open(server: Server, number: int) -> AsyncIterator[list[grpc.aio.StreamStreamCall]]:
    metadata = (("authorization", f"Bearer {signing_key().sign(claims())}"),)
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(server.address, options=options) for _ in range(CONNECTIONS)]
    try:
        few = asyncio.Semaphore(AT_ONCE)

        async def one(place: int) -> grpc.aio.StreamStreamCall:
            async with few:
                call = channels[place % CONNECTIONS].stream_stream(WAIT)(metadata=metadata)
                await call.read()
                return call

        yield await asyncio.gather(*(one(place) for place in range(number)))
    finally:
        for channel in channels:
            await channel.close()
