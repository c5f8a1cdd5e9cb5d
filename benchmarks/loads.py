"""Loads for two servers, measured in turn, so that what disturbs a round disturbs both."""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import grpc
import grpc.aio

from benchmarks.processes import Server, running

ROUNDS, CONCURRENCY = 5, 16
SECONDS = 120
"""How long the calls of one round may take."""

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Load:
    """Calls to a server.

    Args:
        make: makes the calls, given an address and this load.
        method: the method to call.
        request: the message of each call.
        metadata: the metadata of each call.
        calls: how many calls in one round.
        requests: one message for each call, instead of ``request``.

    """

    make: Callable[[str, "Load"], None]
    method: str
    request: bytes = b"x" * 64
    metadata: Metadata = ()
    calls: int = 1000
    requests: Sequence[bytes] = ()


class _Used(NamedTuple):
    server: float
    client: float


def compare(one: str, other: str, load: Load, *, of_client: bool = True) -> dict[str, object]:
    """Return the CPU microseconds per RPC of two kinds of server under one load, and their ratio, by rounds in turn.

    Args:
        one: a kind of server; see :mod:`benchmarks.server`.
        other: the kind to compare it with.
        load: the load of both.
        of_client: whether to count the client's CPU time as well, for users who pay for both.

    """
    used: dict[str, list[_Used]] = {one: [], other: []}
    with ExitStack() as stack:
        servers = {kind: stack.enter_context(running(kind)) for kind in used}
        for turn in range(ROUNDS + 1):
            # Each goes first in every other round.
            for kind in (one, other) if turn % 2 else (other, one):
                figure = _round(servers[kind], load)
                if turn:  # The first round warms up.
                    used[kind].append(figure)
    sums = {kind: [figure.server + figure.client * of_client for figure in figures] for kind, figures in used.items()}
    return {
        **{
            kind: {
                "server us": round(median(figure.server for figure in figures), 1),
                "client us": round(median(figure.client for figure in figures), 1),
            }
            for kind, figures in used.items()
        },
        "ratio": round(median(a / b for a, b in zip(sums[one], sums[other], strict=True)), 3),
        "ratio of server alone": round(
            median(a.server / b.server for a, b in zip(used[one], used[other], strict=True)), 3
        ),
    }


def _round(server: Server, load: Load) -> _Used:
    of_server, of_client = server.cpu, time.process_time()
    load.make(server.address, load)
    return _Used((server.cpu - of_server) / load.calls * 1e6, (time.process_time() - of_client) / load.calls * 1e6)


def unary_aio(address: str, load: Load) -> None:
    """Make unary calls with ``grpc.aio``."""

    async def work() -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            call = channel.unary_unary(load.method)
            requests = iter(load.requests or itertools.repeat(load.request, load.calls))

            async def worker() -> None:
                for request in requests:
                    await call(request, metadata=load.metadata)

            async with asyncio.timeout(SECONDS):
                await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))

    asyncio.run(work())


def unary_sync(address: str, load: Load) -> None:
    """Make unary calls with ``grpc``, from a few threads."""
    threads = 4
    with grpc.insecure_channel(address) as channel, ThreadPoolExecutor(threads) as pool:
        call = channel.unary_unary(load.method)

        def worker() -> None:
            for _ in range(load.calls // threads):
                call(load.request, metadata=load.metadata)

        for done in [pool.submit(worker) for _ in range(threads)]:
            done.result()


def stream_aio(address: str, load: Load) -> None:
    """Read whole streams with ``grpc.aio``, one after the other."""

    async def work() -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            call = channel.unary_stream(load.method)
            for _ in range(load.calls):
                async for _ in call(load.request, metadata=load.metadata):
                    pass

    asyncio.run(work())


def stream_sync(address: str, load: Load) -> None:
    """Read whole streams with ``grpc``, one after the other."""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_stream(load.method)
        for _ in range(load.calls):
            for _ in call(load.request, metadata=load.metadata):
                pass
