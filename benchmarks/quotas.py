"""What a quota costs that several processes count together, beside one that each process counts for itself."""

import time
from statistics import median
from typing import Any

from authz import Authorizer, Call, Policy
from authz.runtime.flow import run
from authz.store.limits import SharedLimits
from benchmarks.material import claims, signing_key, verifier
from tests.store.engines import Engine

ROUNDS, CALLS = 21, 2000
_POLICY: dict[str, Any] = {"name": "p", "allow_rules": [{"name": "all"}]}
_QUOTA = {
    **_POLICY,
    "quotas": {"large": {"requests_per_second": 1_000_000, "burst": 1_000_000}},
    "default_quota": "large",
}


def measure() -> dict[str, object]:
    """Return microseconds of CPU for a call, on all threads of the process, with their ratios; and trips for a call."""
    judges = {
        "no quota": _judge(_POLICY),
        "no quota, with a store": _judge(_POLICY),
        "local": _judge(_QUOTA),
        "shared": _judge(_QUOTA),
    }
    times: dict[str, list[float]] = {name: [] for name in judges}
    call = _call()
    with Engine("valkey") as engine:
        sharing = {name: SharedLimits(engine.store(), judges[name]) for name in ("no quota, with a store", "shared")}
        for limits in sharing.values():
            limits.start()
        for turn in range(ROUNDS + 1):
            for name, judge in judges.items():
                began = time.process_time()
                for _ in range(CALLS):
                    run(judge.authorize(call))
                if turn:  # The first round warms up.
                    times[name].append((time.process_time() - began) / CALLS * 1e6)
        counts = sharing["shared"].quotas.counts
        for limits in sharing.values():
            limits.stop()
    return {
        "cpu_us": {name: round(median(row), 2) for name, row in times.items()},
        "with a store / without, no quota": _ratio(times, "no quota, with a store", "no quota"),
        "shared / local": _ratio(times, "shared", "local"),
        "trips for each call": round((counts["granted"] + counts["empty"]) / CALLS / (ROUNDS + 1), 3),
        "calls counted without the store": counts["local"],
    }


def _judge(policy: dict[str, Any]) -> Authorizer:
    return Authorizer(verifier(signing_key()), policy=Policy.from_document(policy))


def _call() -> Call:
    token = signing_key().sign(claims())
    return Call(method="/authz.demo.v1.LedgerService/PostEntry", metadata=(("authorization", f"Bearer {token}"),))


def _ratio(times: dict[str, list[float]], one: str, other: str) -> float:
    return round(median(this / that for this, that in zip(times[one], times[other], strict=True)), 2)
