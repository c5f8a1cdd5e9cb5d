"""What organizations cost, from a thousand to a million: memory, seconds to read them, and pauses of decisions.

Each number of organizations, and each form of the file, is measured in a process of its own.
"""

import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import yaml

from authz import Authorizer, Call, Policy, PolicyReloader
from authz.runtime.background import allow_background, background, collect_as_usual
from authz.runtime.flow import run
from benchmarks.material import claims, signing_key, verifier

# Documents are read as a whole, and may have 16 MiB.
SIZES = {
    "lines": (1_000, 10_000, 100_000, 1_000_000),
    "json": (1_000, 10_000, 100_000),
    "yaml": (1_000, 10_000, 100_000),
}
# How often a reload is measured, by how many organizations there are at the least; a large one has many steps.
ROUNDS = {1_000_000: 1, 100_000: 2, 0: 3}
# Seconds of deciding after a reload, in which the old policy is freed; and at the most for one reload.
AFTER, PATIENCE = 0.5, 300.0
# Seconds for which pauses are measured without a reload, at the most.
WITHOUT = 1.0
_OFTEN = 0.0003
_GROUPS = 40


def measure() -> dict[str, object]:
    """Return the figures of every form and size."""
    return {form: {f"{size:,}": _measured(form, size) for size in sizes} for form, sizes in SIZES.items()}


def _measured(form: str, size: int) -> dict[str, object]:
    command = [sys.executable, "-m", __name__, form, str(size)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own program
    figures: dict[str, object] = json.loads(result.stdout)
    return figures


def organization(number: int) -> str:
    """Return the id of an organization."""
    return f"org_01JYBENCH{number:016d}"


def write(folder: Path, form: str, size: int, turn: int) -> Path:
    """Write a policy with its organizations, and return its file; each ``turn`` is another policy.

    Args:
        folder: where it is written.
        form: ``lines`` for a file with one on each line beside it, ``json`` or ``yaml`` for one document.
        size: how many organizations there are.
        turn: which policy.

    """
    data: dict[str, object] = {
        "name": f"bench-{turn}",
        "allow_rules": [{"name": "all", "source": {"groups": ["all"]}}],
    }
    if form == "lines":
        with (folder / "new.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(f'{{"id": "{organization(number)}", {_known(number)}}}\n' for number in range(size))
        (folder / "new.jsonl").replace(folder / "organizations.jsonl")
        data["organizations_file"] = "organizations.jsonl"
    path = folder / ("policy.json" if form == "json" else "policy.yaml")
    new = path.with_suffix(".new")
    with new.open("w", encoding="utf-8") as file:
        if form == "json":
            listed = ", ".join(f'"{organization(number)}": {{{_known(number)}}}' for number in range(size))
            file.write(f'{json.dumps(data)[:-1]}, "organizations": {{{listed}}}}}')
        else:
            yaml.dump(data, file, Dumper=yaml.CSafeDumper)
            if form == "yaml":
                file.write("organizations:\n")
                file.writelines(map(_in_yaml, range(size)))
    new.replace(path)
    return path


# Written by hand: libraries take minutes for all files together.
def _known(number: int) -> str:
    groups = f'"groups": ["all", "group-{number % _GROUPS}"]'
    return f'"tenant": "tenant-{number}", {groups}, "name": "Company {number}"'


def _in_yaml(number: int) -> str:
    groups = f"groups:\n    - all\n    - group-{number % _GROUPS}"
    return f"  {organization(number)}:\n    {groups}\n    name: Company {number}\n    tenant: tenant-{number}\n"


class _Pauses(NamedTuple):
    """Milliseconds between decisions of a thread that does nothing else.

    Args:
        longest: the longest.
        p999: of a thousand, the second longest.

    """

    longest: float
    p999: float


def _pauses(authorizer: Authorizer, call: Call, is_over: Callable[[], bool]) -> tuple[_Pauses, float]:
    """Decide until something is over, and a little longer; return the pauses, and the seconds until it was over."""
    times, ended = array("d"), 0.0
    began = last = time.perf_counter()
    while not ended or last < ended + AFTER:
        run(authorizer.authorize(call))
        now = time.perf_counter()
        times.append(now - last)
        last = now
        if not ended and (is_over() or now > began + PATIENCE):
            ended = now
    ordered = sorted(times)
    return _Pauses(ordered[-1] * 1e3, ordered[-1 - len(ordered) // 1000] * 1e3), ended - began


def _longest_step(authorizer: Authorizer, path: Path) -> float:
    """Return for how many milliseconds of CPU a reload holds up other threads at the most.

    A signal is noticed where Python may switch threads. Its own CPU between two of these places, unlike a pause, does
    not grow with other work of the machine.
    """
    longest, last = 0.0, time.thread_time()

    def noticed(*_: object) -> None:
        nonlocal longest, last
        now = time.thread_time()
        longest, last = max(longest, now - last), now

    signal.signal(signal.SIGALRM, noticed)
    signal.setitimer(signal.ITIMER_REAL, _OFTEN, _OFTEN)
    with background():
        authorizer.replace_policy(Policy.from_file(path))
    signal.setitimer(signal.ITIMER_REAL, 0)
    return longest * 1e3


def _figures(form: str, size: int, folder: Path) -> dict[str, object]:
    key = signing_key()
    token = key.sign({**claims(), "org_id": organization(0)})
    call = Call(method="/shop.v1.Shop/Read", metadata=(("authorization", f"Bearer {token}"),))
    authorizer, path = Authorizer(verifier(key)), write(folder, form, size, 0)
    # As in authz serve.
    allow_background()
    before, began = _resident(), time.process_time()
    with PolicyReloader(authorizer, path):
        seconds, after = time.process_time() - began, _resident()
        collect_as_usual()
        run(authorizer.authorize(call))
        during, otherwise, until = [], [], []
        rounds = next(rounds for least, rounds in ROUNDS.items() if size >= least)
        for turn in range(1, rounds + 1):
            # While it writes, this thread decides nothing.
            policy = authorizer.policy
            write(folder, form, size, turn)
            pauses, waited = _pauses(authorizer, call, lambda policy=policy: authorizer.policy is not policy)
            during.append(pauses)
            until.append(waited)
            end = time.perf_counter() + min(waited, WITHOUT)
            otherwise.append(_pauses(authorizer, call, lambda end=end: time.perf_counter() >= end)[0])
    return {
        "read, cpu s": round(seconds, 2),
        "resident, MB": round(after - before, 1),
        "most at any time, MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, 1),
        "from change to in force, s": round(min(until), 2),
        "longest step of a reload, cpu ms": round(_longest_step(authorizer, path), 2),
        "pauses during a reload, ms": _least(during),
        "pauses otherwise, ms": _least(otherwise),
    }


def _least(pauses: list[_Pauses]) -> dict[str, float]:
    # Other work of the machine makes pauses longer, never shorter.
    return {name: round(min(getattr(each, name) for each in pauses), 2) for name in _Pauses._fields}


def _resident() -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) / 2**10


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as where:
        print(json.dumps(_figures(sys.argv[1], int(sys.argv[2]), Path(where))))
