"""How long a check takes with onlookers who load the admin page as often as they can, and without any."""

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles

import grpc

from benchmarks.ext_authz import authz_serve
from benchmarks.material import check_request, claims, signing_key
from benchmarks.server import CHECK

ROUNDS = 5
REQUESTS = 3000
ONLOOKERS = 16
RULES = 1000

# Each requests the next path as soon as it has read the last answer, over one connection.
_ONLOOKERS = """
import asyncio, sys
address, count = sys.argv[1], int(sys.argv[2])
PATHS = ("/api/decisions", "/api/overview", "/api/policy", "/", "/api/about", "/nowhere")
async def look(first):
    host, _, port = address.rpartition(":")
    number, is_first = first, True
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
            while True:
                path = PATHS[number % len(PATHS)]
                number += 1
                writer.write(f"GET {path} HTTP/1.1\\r\\nhost: localhost\\r\\n\\r\\n".encode())
                head = await reader.readuntil(b"\\r\\n\\r\\n")
                length = [line for line in head.lower().split(b"\\r\\n") if line.startswith(b"content-length:")]
                await reader.readexactly(int(length[0].partition(b":")[2]))
                if is_first:
                    is_first = False
                    print("looks", flush=True)
        except (OSError, EOFError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.01)
async def main():
    await asyncio.gather(*(look(number) for number in range(count)))
asyncio.run(main())
"""


def measure() -> dict[str, object]:
    """Return milliseconds with and without onlookers, in turn, and the ratio of the medians."""
    body = check_request(signing_key().sign(claims()))
    return {engine: _measured(engine, body) for engine in ("grpcio", "native")}


def _measured(engine: str, body: bytes) -> dict[str, object]:
    rows: dict[str, list[list[float]]] = {"no onlookers": [], f"{ONLOOKERS} onlookers": []}
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as folder:
        path = Path(folder) / "policy.json"
        path.write_text(json.dumps(_policy()), encoding="utf-8")
        with ExitStack() as stack:
            server = stack.enter_context(authz_serve(engine, "--policy", str(path), "--admin", "127.0.0.1:0"))
            admin = _admin_of(server.pid, server.port)
            run = stack.enter_context(_asking(server.address, body))
            for turn in range(ROUNDS + 1):
                without = run()
                with _onlookers(admin, ONLOOKERS):
                    watched = run()
                if turn:  # The first round warms up.
                    rows["no onlookers"].append(without)
                    rows[f"{ONLOOKERS} onlookers"].append(watched)
    p50 = {name: [row[49] for row in rows_of] for name, rows_of in rows.items()}
    return {
        **{
            name: {
                "p50 ms": round(median(p50[name]), 2),
                "p99 ms": round(median(row[98] for row in rows_of), 2),
            }
            for name, rows_of in rows.items()
        },
        "ratio of p50": round(median(b / a for a, b in zip(*p50.values(), strict=True)), 2),
    }


@contextmanager
def _asking(address: str, body: bytes) -> Iterator[Callable[[], list[float]]]:
    """Yield a function that makes checks, one after the other, and returns percentiles of their milliseconds."""
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(CHECK)

        def run() -> list[float]:
            taken = []
            for _ in range(REQUESTS):
                began = time.perf_counter()
                check(body, timeout=60)
                taken.append((time.perf_counter() - began) * 1e3)
            return quantiles(taken, n=100)

        yield run


def _policy() -> dict[str, object]:
    others = [{"name": f"rule-{number}", "request": {"paths": [f"/a.B{number}/*"]}} for number in range(RULES - 1)]
    return {"name": "bench", "allow_rules": [*others, {"name": "ledger", "request": {"paths": ["/authz.demo.v1.*"]}}]}


def _admin_of(pid: int, port: int) -> str:
    """Return the address of the page: the other TCP port that the server listens on."""
    sockets = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    for line in Path(f"/proc/{pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        found = int(fields[1].partition(":")[2], 16)
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets and found != port:
            urllib.request.urlopen(f"http://127.0.0.1:{found}/api/about").close()
            return f"127.0.0.1:{found}"
    raise RuntimeError("the page is not there")


@contextmanager
def _onlookers(address: str, count: int) -> Iterator[None]:
    command = [sys.executable, "-c", _ONLOOKERS, address, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            assert process.stdout is not None  # noqa: S101 - asked for above
            for _ in range(count):
                process.stdout.readline()
            yield
        finally:
            process.kill()
