"""What the interceptors cost: CPU time per RPC, and latency beside refused calls."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from statistics import median, quantiles

import grpc.aio

from benchmarks import instructions
from benchmarks.loads import Load, compare, stream_aio, stream_sync, unary_aio, unary_sync
from benchmarks.material import claims, signing_key
from benchmarks.processes import Server, running
from benchmarks.server import CALL, MESSAGES, STREAM

ROUNDS, SECONDS = 3, 2.0
CALLS_PER_SECOND, REFUSALS_PER_SECOND = 300, 200


def measure() -> dict[str, object]:
    """Return the figures; every server gets the same metadata, so that they differ only in deciding."""
    authorized = (("authorization", f"Bearer {signing_key().sign(claims())}"),)
    return {
        "unary aio": compare("aio-authz", "aio", Load(unary_aio, CALL, metadata=authorized, calls=1500)),
        "unary sync": compare("sync-authz", "sync", Load(unary_sync, CALL, metadata=authorized, calls=1500)),
        "unary aio / an interceptor that only wraps": compare(
            "aio-authz", "aio-wrapped", Load(unary_aio, CALL, metadata=authorized, calls=1500)
        ),
        "unary sync / an interceptor that only wraps": compare(
            "sync-authz", "sync-wrapped", Load(unary_sync, CALL, metadata=authorized, calls=1500)
        ),
        "unary, instructions of the server": {
            "aio": _instructions("aio", unary_aio, authorized),
            "sync": _instructions("sync", unary_sync, authorized),
        },
        f"stream of {MESSAGES} aio": compare(
            "aio-authz", "aio", Load(stream_aio, STREAM, metadata=authorized, calls=20)
        ),
        f"stream of {MESSAGES} sync": compare(
            "sync-authz", "sync", Load(stream_sync, STREAM, metadata=authorized, calls=20)
        ),
        f"p99 beside {REFUSALS_PER_SECOND} refusals/s": asyncio.run(_beside_refusals(authorized)),
    }


def _instructions(
    kind: str, make: Callable[[str, Load], None], authorized: tuple[tuple[str, str], ...]
) -> dict[str, object]:
    def work(server: Server, calls: int) -> None:
        make(server.address, Load(make, CALL, metadata=authorized, calls=calls))

    def count(kind: str) -> int:
        return instructions.per_call(partial(running, kind), work)

    kinds = (kind, f"{kind}-wrapped", f"{kind}-authz")
    return instructions.compare({each: partial(count, each) for each in kinds}, f"{kind}-wrapped")


async def _beside_refusals(authorized: tuple[tuple[str, str], ...]) -> dict[str, object]:
    alone, beside = [], []
    forged = (("authorization", authorized[0][1][:-8] + "AAAAAAAA"),)
    with running("aio-authz") as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            await _waits(channel, authorized, None)
            for _ in range(ROUNDS):
                alone.append(await _waits(channel, authorized, None))
                beside.append(await _waits(channel, authorized, forged))
    return {
        "ms alone": round(median(alone) * 1e3, 2),
        "ms beside": round(median(beside) * 1e3, 2),
        "ratio": round(median(one / other for one, other in zip(beside, alone, strict=True)), 3),
    }


async def _waits(
    channel: grpc.aio.Channel, authorized: tuple[tuple[str, str], ...], forged: tuple[tuple[str, str], ...] | None
) -> float:
    call = channel.unary_unary(CALL)
    waits: list[float] = []

    async def one(metadata: tuple[tuple[str, str], ...], *, is_good: bool) -> None:
        began = time.perf_counter()
        try:
            await call(b"x", metadata=metadata)
        except grpc.aio.AioRpcError:
            if is_good:
                raise
        if is_good:
            waits.append(time.perf_counter() - began)

    async def steadily(per_second: int, metadata: tuple[tuple[str, str], ...], *, is_good: bool) -> None:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as calls:
            for number in range(int(SECONDS * per_second)):
                await asyncio.sleep(began + number / per_second - time.perf_counter())
                calls.create_task(one(metadata, is_good=is_good))

    async with asyncio.TaskGroup() as both:
        both.create_task(steadily(CALLS_PER_SECOND, authorized, is_good=True))
        if forged is not None:
            both.create_task(steadily(REFUSALS_PER_SECOND, forged, is_good=False))
    return quantiles(waits, n=100)[98]
