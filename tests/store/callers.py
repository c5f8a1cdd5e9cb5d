"""Several replicas, each a process of its own, that make calls of one organization at the same time."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from authz.demo import children
from tests.programs import PATIENCE, environment
from tests.store.engines import Engine

ROOT = Path(__file__).parents[2]


@dataclass
class Sum:
    """What became of all their calls."""

    admitted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    leases: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    longest: float = 0.0

    @property
    def calls(self) -> int:
        return self.admitted + sum(self.refused.values())


def sum_of(told: Sequence[dict[str, Any]]) -> Sum:
    result = Sum(seconds=max(each["ended"] for each in told) - min(each["began"] for each in told))
    for each in told:
        for reason, number in each["calls"].items():
            if reason:
                result.refused[reason] = result.refused.get(reason, 0) + number
            else:
                result.admitted += number
        for what, number in each["leases"].items():
            result.leases[what] = result.leases.get(what, 0) + number
        result.longest = max(result.longest, each["longest"])
    return result


def _kill(replicas: Sequence["subprocess.Popen[str]"]) -> None:
    for each in replicas:
        each.kill()


def calls_of(
    engine: Engine,
    speeds: Sequence[float],
    rate: float,
    burst: int,
    *,
    seconds: float,
    drivers: Sequence[str] = ("sync", "aio"),
    meanwhile: Callable[[], object] | None = None,
) -> Sum:
    """Have one replica for each of ``speeds`` make so many calls a second, all at the same time.

    Args:
        engine: the store.
        speeds: of the replicas.
        rate: of the plan.
        burst: of the plan.
        seconds: for how long.
        drivers: what drives the flows of the replicas, in turn.
        meanwhile: what happens to the store while they call.

    """
    replicas = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.store.caller", engine.url, drivers[number % len(drivers)]),
                *map(str, (rate, burst, speed, seconds, len(speeds))),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(dict(children.mark())),
        )
        for number, speed in enumerate(speeds)
    ]
    end = threading.Timer(PATIENCE, _kill, [replicas])
    end.start()
    try:
        assert all(each.stdout is not None and each.stdout.readline() == "ready\n" for each in replicas)
        for each in replicas:
            assert each.stdin is not None
            each.stdin.write("\n")
            each.stdin.flush()
        if meanwhile is not None:
            meanwhile()
        return sum_of([json.loads(each.communicate()[0]) for each in replicas])
    finally:
        end.cancel()
        _kill(replicas)
        for each in replicas:
            each.wait(PATIENCE)
