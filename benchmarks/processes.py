"""Servers as processes of their own, and the resources that they use."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.material import signing_key

_SCHEDULED = 2
"""Which clock of a process Linux is asked for: the scheduler's, in nanoseconds, as clock_getcpuclockid() has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server."""

    pid: int
    port: int

    @property
    def address(self) -> str:
        """The address at which it listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def cpu(self) -> float:
        """The CPU seconds of all its threads."""
        return time.clock_gettime(~self.pid << 3 | _SCHEDULED)

    @property
    def family(self) -> list["Server"]:
        """It and the processes that it has started."""
        children = [
            int(child)
            for task in Path(f"/proc/{self.pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
        return [self, *(Server(pid=child, port=self.port) for child in children)]

    @property
    def cpu_of_all(self) -> float:
        """The CPU seconds of it, of what it has started, and so on."""
        return self.cpu + sum(child.cpu_of_all for child in self.family[1:])

    @property
    def threads(self) -> int:
        """How many threads it has."""
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    @property
    def resident(self) -> int:
        """The bytes of memory that it holds."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running(kind: str, *, module: str = "benchmarks.server", under: Sequence[str] = ()) -> Iterator[Server]:
    """Run a server of that kind, behind the words of another command.

    See :mod:`benchmarks.server`, or the ``module`` that is given.
    """
    command = [*under, sys.executable, "-m", module, kind, json.dumps(signing_key().private_jwk())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603
        assert process.stdout is not None  # noqa: S101 - asked for above
        yield Server(pid=process.pid, port=int(process.stdout.readline()))
        process.communicate()
