"""What it costs the server to be told afterwards of calls that Envoy has decided: CPU time per call."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from statistics import median

from authz import Authorizer
from authz.decisions.decision import Decision
from authz.envoy.access_log.service import AccessLog, serve_access_log
from authz.envoy.config.memo import FLUSH_SECONDS
from authz.envoy.v3.access_log_pb2 import HTTPAccessLogEntry, StreamAccessLogsMessage
from benchmarks.material import CLIENT, ISSUER, KID, signing_key, verifier

ROUNDS, SECONDS, CALLS_PER_SECOND, CALLERS = 5, 2.0, 1000, 1000
# What Envoy sends at once, at that pace.
_BATCH = round(CALLS_PER_SECOND * FLUSH_SECONDS)

# Another process, so that only the server's CPU time counts; it sends at an even pace.
_ENVOY = """
import sys, time
import grpc
from authz.envoy.access_log.service import METHOD, SERVICE
from benchmarks.access_log import messages

address, count, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
made = messages()

def paced():
    began = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, began + number * pause - time.monotonic()))
        yield made[number % len(made)]

with grpc.insecure_channel(address) as channel:
    channel.stream_unary(f"/{SERVICE}/{METHOD}")(paced())
"""


def messages() -> list[bytes]:
    """Return messages about one call of each caller."""
    entries = [_entry(number) for number in range(CALLERS)]
    batches = [entries[at : at + _BATCH] for at in range(0, CALLERS, _BATCH)]
    return [
        StreamAccessLogsMessage(
            http_logs=StreamAccessLogsMessage.HTTPAccessLogEntries(log_entry=batch)
        ).SerializeToString()
        for batch in batches
    ]


def _entry(number: int) -> HTTPAccessLogEntry:
    about = {
        "organization": f"org_01JYACME{number:017d}",
        "client": CLIENT,
        "subject": CLIENT,
        "scopes": "ledger:read ledger:write",
        "issuer": ISSUER,
        "token_id": f"01JYTOKEN{number:017d}",
        "key_id": KID,
        "policy": "ledger",
        "rule": "partners",
    }
    entry = HTTPAccessLogEntry()
    # What else Envoy tells: addresses, durations, the request and the response.
    entry.MergeFromString(b"\x22\xff\x01" + bytes(255))
    entry.common_properties.start_time.GetCurrentTime()
    entry.common_properties.metadata.filter_metadata["authz.memo"].update(
        {"decided": True, "told": f"{json.dumps(about)} /authz.demo.v1.LedgerService/PostEntry"}
    )
    return entry


def measure() -> dict[str, object]:
    """Return the CPU microseconds of a server for each call of which it is told, as a median of rounds."""
    return asyncio.run(_measure())


async def _measure() -> dict[str, object]:
    decisions: list[Decision] = []
    verified = verifier(signing_key("ES256"))
    authorizer = Authorizer(verified, observers=[decisions.append])
    access_log = AccessLog(authorizer.telling, verified.clock)
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        async with serve_access_log(access_log, f"unix:{folder}/log.sock") as address:
            for _ in range(ROUNDS):
                costs.append(await _cost(access_log, address))
                decisions.clear()
    return {
        f"us per call at {CALLS_PER_SECOND:,} calls per second": round(median(costs), 2),
        "least and most of rounds": [round(min(costs), 2), round(max(costs), 2)],
    }


async def _cost(access_log: AccessLog, address: str) -> float:
    count = round(SECONDS * CALLS_PER_SECOND / _BATCH)
    program = (sys.executable, "-c", _ENVOY, address, str(count), str(_BATCH / CALLS_PER_SECOND))
    counts, before = access_log.counts, access_log.counts["told"]
    envoy = await asyncio.create_subprocess_exec(*program, stdout=subprocess.DEVNULL)
    while counts["told"] == before:  # noqa: ASYNC110 - nothing tells when it grows
        await asyncio.sleep(0.01)
    # From the first message on: to start the other process costs as well.
    told, began = counts["told"], time.process_time()
    await envoy.wait()
    used = time.process_time() - began
    if counts["told"] - before != count * _BATCH:
        raise RuntimeError(f"{counts['told'] - before} calls were told of {count * _BATCH}")
    return used / (counts["told"] - told) * 1e6
