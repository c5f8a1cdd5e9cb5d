"""CPU time of the server process per call: bare, behind the interceptor, and per ext_authz check."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import grpc.aio

from benchmarks.material import check_request, claims, signing_key
from benchmarks.server import CHECK, METHOD

ROUNDS, CALLS, CONCURRENCY = 7, 4000, 32
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What one kind of server took, by round."""

    cpu_us: list[float]
    calls_per_second: list[float]


def measure() -> dict[str, object]:
    """Return CPU microseconds per call of each server, and the ratios."""
    token = signing_key().sign(claims())
    authorized = (("authorization", f"Bearer {token}"),)
    # The bare server gets the same metadata, so that only deciding differs.
    load = {
        "bare": (METHOD, b"x" * 64, authorized),
        "interceptor": (METHOD, b"x" * 64, authorized),
        "constant": (CHECK, check_request(token), ()),
        "ext_authz": (CHECK, check_request(token), ()),
    }
    figures = {kind: Figure(cpu_us=[], calls_per_second=[]) for kind in load}
    with ExitStack() as stack:
        servers = {kind: stack.enter_context(_server(kind)) for kind in load}
        for turn in range(ROUNDS + 1):
            for kind, (method, request, metadata) in load.items():
                pid, port = servers[kind]
                cpu, wall = asyncio.run(_load(pid, port, method, request, metadata))
                if turn:  # The first round warms up.
                    figures[kind].cpu_us.append(cpu / CALLS * 1e6)
                    figures[kind].calls_per_second.append(CALLS / wall)
    cpu = {kind: median(figure.cpu_us) for kind, figure in figures.items()}
    return {
        "cpu_us_per_call": {kind: round(value, 1) for kind, value in cpu.items()},
        "cpu_us_spread": {kind: [round(min(f.cpu_us), 1), round(max(f.cpu_us), 1)] for kind, f in figures.items()},
        "calls_per_second": {kind: round(median(figure.calls_per_second)) for kind, figure in figures.items()},
        "ratios": {
            "interceptor / bare": round(_paired(figures, "interceptor", "bare"), 3),
            "ext_authz / constant": round(_paired(figures, "ext_authz", "constant"), 3),
        },
    }


def _paired(figures: dict[str, Figure], one: str, other: str) -> float:
    return median(a / b for a, b in zip(figures[one].cpu_us, figures[other].cpu_us, strict=True))


@contextmanager
def _server(kind: str) -> Iterator[tuple[int, int]]:
    command = [sys.executable, "-m", "benchmarks.server", kind, json.dumps(signing_key().private_jwk())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603
        assert process.stdout is not None  # noqa: S101 - asked for above
        yield process.pid, int(process.stdout.readline())
        process.communicate()


async def _load(
    pid: int, port: int, method: str, request: bytes, metadata: tuple[tuple[str, str], ...]
) -> tuple[float, float]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(method)

        async def worker(count: int) -> None:
            for _ in range(count):
                await call(request, metadata=metadata)

        await worker(50)
        cpu, wall = _cpu(pid), time.perf_counter()
        await asyncio.gather(*(worker(CALLS // CONCURRENCY) for _ in range(CONCURRENCY)))
        return _cpu(pid) - cpu, time.perf_counter() - wall


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK
