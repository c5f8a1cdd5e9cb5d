"""Load from ``h2load`` (Debian's nghttp2-client), which is written in C and so disturbs the measurement little."""

import re
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from benchmarks.missing import program

_FINISHED = re.compile(r"finished in .*?, ([0-9.]+) req/s")
_STATUS = re.compile(r"status codes: (\d+) 2xx")
SECONDS = 120
"""How long a run may take."""

GRPC = ("content-type: application/grpc", "te: trailers")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results of one run of the load.

    Args:
        per_second: requests per second.
        p50: milliseconds that the median request took.
        p99: milliseconds that one of a hundred exceeded.

    """

    per_second: float
    p50: float
    p99: float


def load(
    url: str,
    requests: int,
    *,
    streams: int = 1,
    connections: int = 1,
    body: bytes = b"",
    headers: Sequence[str] = (),
    http1: bool = False,
) -> Outcome:
    """Make requests over HTTP/2 without TLS, or over HTTP/1.1; all must be answered with 200.

    Args:
        url: the URL of all requests.
        requests: how many, in all.
        streams: how many at a time on each connection.
        connections: how many.
        body: the body of each; without one, they are ``GET``.
        headers: as ``name: value``.
        http1: whether to speak HTTP/1.1.

    """
    with tempfile.TemporaryDirectory() as folder:
        log, data = Path(folder) / "log", Path(folder) / "body"
        data.write_bytes(body)
        command = [_h2load(), f"-n{requests}", f"-c{connections}", f"-m{streams}", f"--log-file={log}"]
        command += ["--h1"] if http1 else []
        command += [part for header in headers for part in ("-H", header)]
        if body:
            command += ["-d", str(data)]
        out = subprocess.run([*command, url], check=True, capture_output=True, text=True, timeout=SECONDS).stdout  # noqa: S603
        finished, status = _FINISHED.search(out), _STATUS.search(out)
        if finished is None or status is None or int(status[1]) != requests:
            raise RuntimeError(f"not every request was answered:\n{out}")
        # Start, status and microseconds of each.
        taken = [int(line.split("\t")[2]) / 1e3 for line in log.read_text().splitlines()]
    cuts = quantiles(taken, n=100)
    return Outcome(float(finished[1]), cuts[49], cuts[98])


def framed(message: bytes) -> bytes:
    """Return ``message`` as gRPC sends it."""
    return struct.pack(">BI", 0, len(message)) + message


def _h2load() -> str:
    return program("h2load", "The load comes from", "make ci-bench")
