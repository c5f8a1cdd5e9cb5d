"""CPU time that a large policy adds to a check of a remembered token: to the verdict alone, and to the whole check."""

import gc
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from authz import Authorizer, Call, Policy
from authz.envoy.check.servicer import AuthorizationServicer
from authz.runtime.flow import run
from benchmarks.material import check_request, claims, signing_key, verifier

RULES, ORGANIZATIONS = 500, 10_000
ROUNDS, CALLS, PASSES = 9, 500, 20


def measure() -> dict[str, object]:
    """Return microseconds of a check without a policy and with one, both ways measured in turn."""
    key = signing_key()
    keeper = verifier(key)
    policy = Policy.from_document(large_policy())
    # Fifty callers of ten methods each, so that more than one entry of every memory is in use.
    tokens = [key.sign({**claims(serial), "org_id": organization(serial * 191)}) for serial in range(50)]
    calls = [
        _call(token, f"/shop.v1.Service{number}/Read") for token in tokens for number in range(0, RULES, RULES // 10)
    ]
    requests = [check_request(_token_of(call), call.method) for call in calls]
    judges = {"without": Authorizer(keeper), "with": Authorizer(keeper, policy=policy)}
    return {
        "policy": f"{RULES} rules, {ORGANIZATIONS} organizations",
        "authorize": _compared({name: _authorize(judge, calls) for name, judge in judges.items()}),
        "check": _compared({name: _check(AuthorizationServicer(judge), requests) for name, judge in judges.items()}),
    }


def organization(number: int) -> str:
    """Return one of the organizations of the policy."""
    return f"org_01JYBENCH{number % ORGANIZATIONS:016d}"


def large_policy() -> dict[str, Any]:
    """Return the data of a policy: rules by path, group and scope, and every organization in two groups."""
    return {
        "name": "bench",
        "deny_rules": [
            {
                "name": f"deny-{number}",
                "source": {"groups": [f"group-{number % 40}"]},
                "request": {"paths": [f"/shop.v1.Service{number}/Delete"]},
            }
            for number in range(RULES // 2)
        ],
        "allow_rules": [
            {
                "name": f"allow-{number}",
                "source": {"groups": [f"group-{member}" for member in range(20)] + ["all"]},
                "request": {"paths": [f"/shop.v1.Service{number * 2}/*"]},
            }
            for number in range(RULES // 2)
        ],
        "organizations": {
            organization(number): {"tenant": f"tenant-{number}", "groups": ["all", f"group-{number % 40}"]}
            for number in range(ORGANIZATIONS)
        },
    }


def _call(token: str, method: str) -> Call:
    return Call(method=method, metadata=(("user-agent", "grpc-python/1.85.1"), ("authorization", f"Bearer {token}")))


def _token_of(call: Call) -> str:
    return str(call.metadata[-1][1]).removeprefix("Bearer ")


def _authorize(authorizer: Authorizer, calls: Sequence[Call]) -> Callable[[], None]:
    def authorize() -> None:
        for call in calls:
            run(authorizer.authorize(call))

    return authorize


def _check(servicer: AuthorizationServicer, requests: Sequence[bytes]) -> Callable[[], None]:
    def check() -> None:
        for request in requests:
            servicer.begin(request)

    return check


def _compared(actions: dict[str, Callable[[], None]]) -> dict[str, object]:
    times = _in_turn(actions)
    ratios = [there / bare for there, bare in zip(times["with"], times["without"], strict=True)]
    return {
        "cpu_us": {name: round(median(row), 2) for name, row in times.items()},
        "with / without": round(median(ratios), 3),
    }


def _in_turn(checks: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in checks}
    for turn in range(ROUNDS + 1):
        for name, check in checks.items():
            gc.collect()
            began = time.process_time()
            for _ in range(PASSES):
                check()
            if turn:  # The first round warms up.
                times[name].append((time.process_time() - began) / (PASSES * CALLS) * 1e6)
    return times
