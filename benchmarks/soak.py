"""Run real servers for an hour under a moderate load that changes all the time, and see that nothing goes up.

``SOAK_SECONDS`` and ``SOAK_RATE`` (calls per second) make it shorter and lighter. It writes ``soak.json`` and
``soak.svg`` into the folder that it is given, and fails if an answer was wrong, or if memory, file descriptors, threads
or waits go up after it has warmed up.
"""

import asyncio
import json
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from statistics import quantiles
from typing import Any

import grpc
import grpc.aio

from authz.demo import children
from authz.envoy.v3.external_auth_pb2 import CheckResponse
from benchmarks.material import check_request
from benchmarks.plots import chart, stacked
from benchmarks.server import CHECK
from benchmarks.soak_server import CALL, WAIT
from benchmarks.soak_site import Site, running
from benchmarks.trend import Tolerance, goes_up

SECONDS, RATE = float(os.environ.get("SOAK_SECONDS", "3600")), float(os.environ.get("SOAK_RATE", "100"))
SAMPLES, STREAMS = 60, 100
# The first quarter is the time to warm up.
WARM = 0.25
# How long a change takes at the most until it is in force in each process.
SETTLE = 5.0
# The share of streams whose caller hangs up. grpc.aio itself frees about 110 bytes of each never, without any
# interceptor as well: https://github.com/grpc/grpc/issues/43360.
HUNG_UP = 0.1
RELOAD_SECONDS, ROTATE_SECONDS, ORDER_SECONDS = 15.0, 120.0, 20.0

TOLERANCES = {
    "MiB": Tolerance(0.05, 3.0),
    "descriptors": Tolerance(0.1, 4.0),
    "threads": Tolerance(0.1, 3.0),
    "p99 ms": Tolerance(0.5, 3.0),
}
"""By how much each figure may rise; waits depend on what else the machine does."""

GOOD, KEPT_OUT = 0, 1


class Soak:
    """One run."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.rows: list[dict[str, Any]] = []
        self.answers: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self._waits: list[float] = []
        self._began = time.monotonic()
        self._out: bool | None = False

    async def run(self) -> None:
        """Go on until the time is over."""
        async with asyncio.TaskGroup() as tasks:
            for work in (self._load, self._reload, self._rotate, self._order, self._sample):
                tasks.create_task(work())
            for _ in range(STREAMS):
                tasks.create_task(self._stream())

    @property
    def _left(self) -> float:
        return self._began + SECONDS - time.monotonic()

    def _token(self, whose: int) -> str:
        return random.choice(self.site.issuer.tokens[whose])  # noqa: S311 - no secret

    async def _load(self) -> None:
        channels = [grpc.aio.insecure_channel(address) for address in self.site.workers]
        checks = [channel.unary_unary(CHECK) for channel in channels]
        channels.append(grpc.aio.insecure_channel(f"127.0.0.1:{self.site.port}"))
        call, number = channels[-1].unary_unary(CALL), 0
        async with asyncio.TaskGroup() as calls:
            while self._left > 0:
                await asyncio.sleep(self._began + number / RATE - time.monotonic())
                number += 1
                one = call if number % 2 else checks[number // 2 % len(checks)]
                calls.create_task(self._ask(one, KEPT_OUT if number % 5 == 0 else GOOD, is_check=one is not call))
        for channel in channels:
            await channel.close()

    async def _ask(self, call: Any, whose: int, *, is_check: bool) -> None:
        token, out, began = self._token(whose), self._out, time.perf_counter()
        try:
            if is_check:
                answer = CheckResponse.FromString(await call(check_request(token), timeout=30))
                code, why = answer.status.code, _reason_in(answer)
            else:
                await call(b"x", metadata=(("authorization", f"Bearer {token}"),), timeout=30)
                code, why = 0, ""
        except grpc.aio.AioRpcError as error:
            code, why = error.code().value[0], _reason_in(error.trailing_metadata())
        self._waits.append(time.perf_counter() - began)
        self._count(whose, code, out, why)

    def _count(self, whose: int, code: int, out: bool | None, why: str) -> None:  # noqa: FBT001 - as the call began
        if whose == KEPT_OUT and (out is None or self._out is not out):
            self.answers["while orders change"] += 1
            return
        wanted = grpc.StatusCode.UNAUTHENTICATED.value[0] if whose == KEPT_OUT and out else 0
        self.answers["right" if code == wanted else f"wrong: {code} for {wanted} {why}"] += 1

    async def _stream(self) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.site.port}") as channel:
            while self._left > 0:
                whose = random.choice((GOOD, KEPT_OUT))  # noqa: S311 - as above
                call = channel.stream_stream(WAIT)(metadata=(("authorization", f"Bearer {self._token(whose)}"),))
                with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                    await call.write(b"x")
                    await call.read()
                    await asyncio.sleep(min(random.uniform(5, 20), max(self._left, 0)))  # noqa: S311 - as above
                    if random.random() >= HUNG_UP:  # noqa: S311 - as above
                        await call.done_writing()
                        await call.code()
                call.cancel()
                self.done["streams"] += 1
                # Those of an organization that is kept out do not come back at once.
                await asyncio.sleep(1)

    async def _each(self, seconds: float) -> bool:
        await asyncio.sleep(min(seconds, max(self._left, 0)))
        return self._left > 0

    async def _reload(self) -> None:
        while await self._each(RELOAD_SECONDS):
            self.done["reloads"] += 1
            self.site.reload(self.done["reloads"])

    async def _rotate(self) -> None:
        # Tokens last five minutes: new ones come in between as well.
        while await self._each(ROTATE_SECONDS):
            self.done["rotations"] += 1
            await asyncio.to_thread(self.site.issuer.rotate)

    async def _order(self) -> None:
        kept_out = self.site.issuer.applications[KEPT_OUT]
        while await self._each(ORDER_SECONDS):
            self.done["orders"] += 1
            is_out, self._out = bool(self._out), None
            order = self.site.operator.reinstate if is_out else self.site.operator.revoke
            await asyncio.to_thread(order, client_id=kept_out)
            await asyncio.sleep(SETTLE)
            self._out = not is_out

    async def _sample(self) -> None:
        pause = SECONDS / SAMPLES
        while self._left > 0:
            await asyncio.sleep(pause)
            waits, self._waits = self._waits, []
            cuts = quantiles(waits, n=100) if len(waits) > 1 else [0.0] * 99
            row = {"s": round(time.monotonic() - self._began, 1), "calls": len(waits)}
            row |= {"p50 ms": round(cuts[49] * 1e3, 2), "p99 ms": round(cuts[98] * 1e3, 2)}
            self.rows.append({**row, **self.site.samples()})


def _reason_in(answer: object) -> str:
    """Return the words in capital letters that an answer has somewhere, such as ``KEY_UNDECIDED``."""
    return " ".join(sorted(set(re.findall(r"[A-Z]+(?:_[A-Z]+)+", str(answer)))))


def lines_of(rows: list[dict[str, Any]], figure: str) -> dict[str, list[tuple[float, float]]]:
    """Return a figure over time, of each process that has it; that of the waits belongs to all."""
    if figure in rows[0]:
        return {"all": [(row["s"], row[figure]) for row in rows]}
    names = [name for name, value in rows[0].items() if isinstance(value, dict)]
    return {name: [(row["s"], row[name][figure]) for row in rows] for name in names}


def faults(rows: list[dict[str, Any]], answers: Counter[str]) -> list[str]:
    """Return what is wrong with a run; empty if nothing is."""
    found = [f"{count} answers were {answer}" for answer, count in answers.items() if answer.startswith("wrong")]
    if not answers["right"]:
        found.append("no answer was right")
    warm = [row for row in rows if row["s"] >= WARM * rows[-1]["s"]]
    found += [
        f"{figure} of {name} go up"
        for figure, tolerance in TOLERANCES.items()
        for name, line in lines_of(warm, figure).items()
        if goes_up(line, tolerance)
    ]
    return found


def main(folder: Path) -> int:
    """Run it, write what it found, and return the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, running(Path(temporary)) as site:
        soak = Soak(site)
        asyncio.run(soak.run())
    wrong = faults(soak.rows, soak.answers)
    told = {"seconds": SECONDS, "done": dict(soak.done), "answers": dict(soak.answers), "faults": wrong}
    (folder / "soak.json").write_text(json.dumps({**told, "samples": soak.rows}, indent=1) + "\n", encoding="utf-8")
    figures = {"MiB": "MiB", "descriptors": "number", "threads": "number", "p50 ms": "ms", "p99 ms": "ms"}
    charts = [chart(figure, lines_of(soak.rows, figure), across="s", up=unit) for figure, unit in figures.items()]
    (folder / "soak.svg").write_text(stacked(charts), encoding="utf-8")
    print(json.dumps(told, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    os.environ.update(children.mark())
    sys.exit(main(Path(sys.argv[1])))
