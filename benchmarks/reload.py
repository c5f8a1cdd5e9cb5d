"""How long it takes to put a large policy in force while calls are decided, and how long calls wait meanwhile."""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import yaml

from authz import Authorizer, Call, Policy, PolicyReloader
from authz.runtime.background import allow_background, background
from authz.runtime.flow import run
from benchmarks.material import claims, signing_key, verifier
from benchmarks.policy import ORGANIZATIONS, RULES, large_policy, organization

ROUNDS = 5
# Seconds for what follows: freeing the old policy, and garbage collection.
AFTER = 0.2

WRITE: dict[str, Callable[[object], str]] = {"yaml": yaml.safe_dump, "json": json.dumps}


def measure() -> dict[str, object]:
    """Return milliseconds to load a policy, until a changed file is in force, and of the longest pause meanwhile."""
    key = signing_key()
    token = key.sign({**claims(), "org_id": organization(0)})
    call = Call(method="/shop.v1.Service0/Read", metadata=(("authorization", f"Bearer {token}"),))
    # As in authz serve.
    allow_background()
    report: dict[str, object] = {"policy": f"{RULES} rules, {ORGANIZATIONS} organizations"}
    with tempfile.TemporaryDirectory() as folder:
        for suffix, write in WRITE.items():
            path = Path(folder) / f"policy.{suffix}"
            path.write_text(write(large_policy()), encoding="utf-8")
            report[suffix] = _measured(path, write, Authorizer(verifier(key)), call)
    return report


def _measured(path: Path, write: Callable[[object], str], authorizer: Authorizer, call: Call) -> dict[str, object]:
    rows = []
    with PolicyReloader(authorizer, path):
        for turn in range(ROUNDS + 1):
            new = path.with_suffix(".new")
            new.write_text(write({**large_policy(), "name": f"bench-{turn}"}), encoding="utf-8")
            before, began = authorizer.policy, time.perf_counter()
            new.replace(path)
            during, ended = _longest_pause(authorizer, call, lambda before=before: authorizer.policy is not before)
            without, _ = _longest_pause(authorizer, call, _after(ended - began))
            if turn:  # The first round warms up.
                rows.append(((ended - began) * 1e3, during * 1e3, without * 1e3))
    in_force, during_reload, otherwise = zip(*rows, strict=True)
    return {
        "load, cpu ms": round(median(_loads(path)), 1),
        "from change to in force, ms": round(median(in_force), 1),
        "longest pause of decisions, ms": {
            "during a reload": _least_and_median(during_reload),
            "otherwise": _least_and_median(otherwise),
        },
    }


def _least_and_median(times: Sequence[float]) -> dict[str, float]:
    # Other work of the machine makes pauses longer, never shorter.
    return {"least": round(min(times), 1), "median": round(median(times), 1)}


def _longest_pause(authorizer: Authorizer, call: Call, is_over: Callable[[], bool]) -> tuple[float, float]:
    """Decide until something is over and a little longer; return the longest pause, and when that was over."""
    longest, ended, last = 0.0, 0.0, time.perf_counter()
    while not ended or last < ended + AFTER:
        run(authorizer.authorize(call))
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
        if not ended and is_over():
            ended = now
    return longest, ended


def _after(seconds: float) -> Callable[[], bool]:
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= end


def _loads(path: Path) -> list[float]:
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        with background():
            Policy.from_file(path)
        times.append((time.process_time() - began) * 1e3)
    return times
