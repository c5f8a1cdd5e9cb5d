"""How policies grow: what they take to load, in memory and to decide by, from 500 rules to 100,000.

Each figure is of a process of its own, which reads a file as operators write it.
"""

import collections
import gc
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

from authz import Call, Policy
from authz.call.principal import Principal
from authz.errors import PermissionDeniedError
from authz.organizations.organization import Organization
from authz.policy.explain.replay import Replay
from authz.runtime.background import allow_background, background
from authz.v1 import policy_pb2

RULES, HEADERS, METHODS = (500, 5_000, 50_000, 100_000), (100, 1_000, 10_000), (100, 500, 1_000, 5_000)
LOG_MEGABYTES = (1, 5, 20)
ROUNDS, CALLS = 40, 100

_GROUPS = [f"group-{number}" for number in range(40)]
_TRIAL = Organization(groups=frozenset(_GROUPS[:3]))


def measure() -> dict[str, object]:
    """Return seconds of CPU, megabytes and microseconds, by how much there is of each."""
    with tempfile.TemporaryDirectory() as folder:
        rules = {count: _apart("policy", Path(folder), "rules", count, "json") for count in RULES}
        headers = {count: _apart("policy", Path(folder), "headers", count, "json") for count in HEADERS}
        return {
            "rules, JSON": _with_ratios(rules),
            "rules, YAML": {RULES[-1]: _apart("policy", Path(folder), "rules", RULES[-1], "yaml")},
            "rules by a header's value, on one method": _with_ratios(headers),
            "methods of a descriptor set": {count: _apart("methods", Path(folder), "", count, "") for count in METHODS},
            "megabytes of a decision log, replayed": {
                size: _apart("replay", Path(folder), "", size, "") for size in LOG_MEGABYTES
            },
        }


def _with_ratios(rows: dict[int, dict[str, float]]) -> dict[int, dict[str, float]]:
    least = next(iter(rows.values()))["decision, us"]
    return {count: {**row, "decision / that of the fewest": row["decision, us"] / least} for count, row in rows.items()}


def _apart(what: str, folder: Path, kind: str, count: int, suffix: str) -> dict[str, float]:
    for step in ("write", "measure"):
        command = [sys.executable, "-m", "benchmarks.rules", step, what, str(folder), kind, str(count), suffix]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - this very module
    report: dict[str, float] = json.loads(done.stdout)
    return report


def large_policy(kind: str, count: int) -> dict[str, Any]:
    """Return the data of a policy: half of the rules deny and half allow, or all ask for a header's value."""
    if kind == "headers":
        asked = [{"paths": ["/shop.v1.Shop/Read"], "headers": [_header(number)]} for number in range(count)]
        return {"name": "bench", "allow_rules": [_rule("allow", n, {}, request) for n, request in enumerate(asked)]}
    return {
        "name": "bench",
        "groups": _GROUPS,
        "deny_rules": [
            _rule("deny", n, {"organizations": [_organization(n)]}, {"paths": [f"/shop.v1.Service{n}/Delete"]})
            for n in range(count // 2)
        ],
        "allow_rules": [
            _rule("allow", n, _readers(n), {"paths": [f"/shop.v1.Service{n}/*"]}) for n in range(count // 2)
        ],
    }


def _readers(number: int) -> dict[str, Any]:
    return {"scopes": [f"shop:{number % 50}"], "groups": [_GROUPS[number % len(_GROUPS)]]}


def _rule(what: str, number: int, source: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    return {"name": f"{what}-{number}", "source": source, "request": request}


def _organization(number: int) -> str:
    return f"org_01JYBENCH{number % 10_000:016d}"


def _header(number: int) -> dict[str, Any]:
    return {"key": "x-tenant", "values": [f"tenant-{number}"]}


def _write_policy(folder: Path, kind: str, count: int, suffix: str) -> None:
    data = large_policy(kind, count)
    text = json.dumps(data) if suffix == "json" else yaml.dump(data, Dumper=yaml.CSafeDumper)
    (folder / f"policy.{suffix}").write_text(text, encoding="utf-8")


def _measure_policy(folder: Path, kind: str, count: int, suffix: str) -> dict[str, float]:
    file = folder / f"policy.{suffix}"
    allow_background()
    began_with, began = _resident(), time.process_time()
    with background():
        policy = Policy.from_file(file)
        loaded, began = time.process_time() - began, time.process_time()
        # The first one looks at all that is new.
        gc.collect(0)
        collected = time.process_time() - began
    megabytes = _resident() - began_with
    decisions = [_decisions(policy, kind, count, turn) for turn in range(ROUNDS)]
    del policy
    return {
        "load, s": round(loaded, 2),
        "memory, MB": round(megabytes, 1),
        "decision, us": round(min(decisions), 2),
        "first collection of garbage after it, CPU ms": round(collected * 1e3, 1),
        "longest pause of another thread, CPU ms": round(min(_pause(file) for _ in range(2)) * 1e3, 1),
    }


def _decisions(policy: Policy, kind: str, count: int, turn: int) -> float:
    """Return microseconds of a decision about a caller of whom nothing is remembered."""
    questions = []
    for each in range(turn * CALLS, (turn + 1) * CALLS):
        number = each * 7919 % (count // 2)
        path = f"/shop.v1.Service{number}/Read" if kind == "rules" else "/shop.v1.Shop/Read"
        call = Call(method=path, metadata=(("x-tenant", f"tenant-{number}"),))
        scopes = frozenset({"shop:0", "shop:1"})
        caller = Principal(org_id=_organization(number), client_id=f"client-{each}", subject="", scopes=scopes)
        questions.append((call, caller))
    began = time.process_time()
    for call, caller in questions:
        try:
            policy.admit(call, caller, _TRIAL)
        except PermissionDeniedError:
            continue
    return (time.process_time() - began) / CALLS * 1e6


def _pause(file: Path) -> float:
    """Return how much CPU time this process spent at most between two turns of a thread while a policy is loaded.

    Not how much time passed: that would count the pauses of the machine too.
    """
    is_over = threading.Event()

    def load() -> None:
        with background():
            # It goes as one that was in force does.
            collections.deque(Policy.from_file(file).let_go(), maxlen=0)
        is_over.set()

    thread = threading.Thread(target=load)
    thread.start()
    longest, last = 0.0, time.process_time()
    while not is_over.is_set():
        now = time.process_time()
        longest, last = max(longest, now - last), now
    thread.join()
    return longest


def _resident() -> float:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError


def _write_methods(folder: Path, _kind: str, count: int, _suffix: str) -> None:
    empty = DescriptorProto(name="Empty")
    file = FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3", message_type=[empty])
    file.dependency.append(policy_pb2.DESCRIPTOR.name)
    for first in range(0, count, 50):
        service = file.service.add(name=f"Service{first}")
        for number in range(first, first + 50):
            method = service.method.add(name=f"Method{number}", input_type=".shop.Empty", output_type=".shop.Empty")
            method.options.Extensions[policy_pb2.access].scopes.append(f"shop:{number % 50}")
    files = [FileDescriptorProto.FromString(each.serialized_pb) for each in _needed(policy_pb2.DESCRIPTOR)]
    (folder / "shop.binpb").write_bytes(FileDescriptorSet(file=[*files, file]).SerializeToString())


def _needed(file: FileDescriptor) -> list[FileDescriptor]:
    """Return a file after those that it imports."""
    return list(dict.fromkeys([*(each for other in file.dependencies for each in _needed(other)), file]))


def _measure_methods(folder: Path, _kind: str, count: int, _suffix: str) -> dict[str, float]:
    began_with, began = _resident(), time.process_time()
    policy = Policy.from_descriptors(folder / "shop.binpb")
    loaded, megabytes = time.process_time() - began, _resident() - began_with
    if len(policy.requirements) != count:
        raise RuntimeError
    caller = Principal(org_id="o", client_id="c", subject="", scopes=frozenset({"shop:0"}))
    calls = [Call(method=f"/shop.Service{n - n % 50}/Method{n}", metadata=()) for n in range(0, count, 50)]
    began = time.process_time()
    for call in calls:
        policy.admit(call, caller)
    decision = (time.process_time() - began) / len(calls) * 1e6
    return {"load, s": round(loaded, 4), "memory, MB": round(megabytes, 2), "decision, us": round(decision, 2)}


def _write_replay(folder: Path, _kind: str, size: int, _suffix: str) -> None:
    _write_policy(folder, "rules", RULES[0], "json")
    with (folder / "decisions.jsonl").open("w", encoding="utf-8") as log:
        number = 0
        while log.tell() < size * 2**20:
            log.writelines(f"{json.dumps(_logged(each))}\n" for each in range(number, number + 1_000))
            number += 1_000


def _logged(number: int) -> dict[str, object]:
    """Return a line of a decision log: of five thousand callers, and 250 services."""
    client = f"client_01JYBENCH{number * 7919 % 5_000:016d}"
    decided = {
        "verdict": "denied",
        "code": "PERMISSION_DENIED",
        "reason": "policy_denied",
        "rule": "",
        "latency_us": 21,
    }
    caller = {"organization": _organization(number * 191 % 5_000), "client": client, "scopes": ["shop:0", "shop:1"]}
    called = {
        "door": "envoy",
        "method": f"/shop.v1.Service{number % 250}/Read",
        "verb": "POST",
        "token": f"{number:032x}",
    }
    return {"timestamp": "2026-01-01T00:00:00.000000Z", "event": "decision", **decided, **called, **caller}


def _measure_replay(folder: Path, _kind: str, _size: int, _suffix: str) -> dict[str, float]:
    old, new = (Policy.from_file(folder / "policy.json") for _ in range(2))
    replay = Replay(old, new)
    began_with, began = _resident(), time.process_time()
    with (folder / "decisions.jsonl").open("rb") as log:
        replay.feed(log)
    seconds = time.process_time() - began
    return {
        "lines": replay.replayed,
        "s": round(seconds, 2),
        "us a line": round(seconds / replay.replayed * 1e6, 2),
        "memory, MB": round(_resident() - began_with, 1),
    }


_STEPS: dict[str, tuple[Callable[..., None], Callable[..., dict[str, float]]]] = {
    "policy": (_write_policy, _measure_policy),
    "methods": (_write_methods, _measure_methods),
    "replay": (_write_replay, _measure_replay),
}


def main(step: str, what: str, *place: str) -> None:
    """Write the files for one figure, or measure it and print it."""
    write, measured = _STEPS[what]
    folder, kind, count, suffix = place
    if step == "write":
        write(Path(folder), kind, int(count), suffix)
    else:
        sys.stdout.write(json.dumps(measured(Path(folder), kind, int(count), suffix)))


if __name__ == "__main__":
    main(*sys.argv[1:])
