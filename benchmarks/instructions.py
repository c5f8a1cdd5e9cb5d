"""User instructions of a server per call, as valgrind counts them: a number that does not drift with the machine.

A count says how much code runs, and not how long it takes: a miss of a cache costs as much time as hundreds of
instructions, and what the kernel does is not in it. So it stands beside CPU time, and replaces it where two servers
differ by less than a machine drifts.
"""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from benchmarks.missing import MissingError, program
from benchmarks.processes import Server

WARM, CALLS = 200, 600

_SUMMARY = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)


class Start(Protocol):
    """Starts a server, behind the words of a command that runs it."""

    def __call__(self, *, under: Sequence[str]) -> AbstractContextManager[Server]:
        """Return the server, running."""


class Count(Protocol):
    """Returns the instructions that a running server needs for one call, in user space, on all its threads."""

    def __call__(self, make: Callable[[Server, int], object], calls: int = CALLS) -> int:
        """Count so many calls, which ``make`` makes to the server, after some that warm it up."""


@contextmanager
def counting(start: Start) -> Iterator[Count]:
    """Run a server under valgrind, and give what counts; what is done between two counts is in neither."""
    with _valgrind() as (under, folder), start(under=under) as server:
        _control(server, "--instr=on")

        def count(make: Callable[[Server, int], object], calls: int = CALLS) -> int:
            make(server, WARM)
            _control(server, "--zero")
            before = set(folder.iterdir())
            make(server, calls)
            _control(server, "--dump")
            counted = (_SUMMARY.search(out.read_text()) for out in set(folder.iterdir()) - before)
            return round(max(int(found[1]) for found in counted if found) / calls)

        yield count


def per_call(start: Start, make: Callable[[Server, int], object], calls: int = CALLS) -> int:
    """Return what :func:`counting` counts of one kind of call.

    Args:
        start: starts the server.
        make: makes so many calls to it.
        calls: how many are counted.

    """
    with counting(start) as count:
        return count(make, calls)


def compare(kinds: Mapping[str, Callable[[], int]], base: str) -> dict[str, object]:
    """Return the thousands of instructions per call of each kind, and what each needs of those of ``base``."""
    try:
        counts = {kind: count() for kind, count in kinds.items()}
    except MissingError as error:
        return {"left out": str(error)}
    return {
        "thousand instructions": {kind: round(count / 1e3, 1) for kind, count in counts.items()},
        f"of {base}": {kind: round(count / counts[base], 3) for kind, count in counts.items() if kind != base},
    }


@contextmanager
def _valgrind() -> Iterator[tuple[Sequence[str], Path]]:
    valgrind = program("valgrind", "Instructions are counted by", "apt install valgrind")
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as folder:
        out = Path(folder) / "callgrind"
        yield (
            [valgrind, "--quiet", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"],
            Path(folder),
        )


def _control(server: Server, *words: str) -> None:
    subprocess.run(["callgrind_control", *words, str(server.pid)], check=True, capture_output=True)  # noqa: S603, S607
