"""Our commands as processes of their own, observed from outside."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from authz.settings.variables import is_ours

PATIENCE = 120.0
"""Seconds after which something that must happen counts as never happening."""

AUTHZ = (sys.executable, "-W", "error", "-m", "authz")


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return this process's variables without settings of ours, and with ``changes``."""
    inherited = {name: value for name, value in os.environ.items() if not is_ours(name)}
    return {**inherited, **changes}


def run(
    *arguments: str, folder: Path, stdin: str | bytes = "", command: Sequence[str] = AUTHZ, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in ``folder``."""
    done = subprocess.run(
        [*command, *arguments],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        check=False,
        timeout=PATIENCE,
        cwd=folder,
        env=environment(variables),
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


class Program:
    """A command that runs until it is told to end; a context manager.

    Args:
        arguments: what to give it.
        folder: where it runs.
        command: what it is.
        variables: of its environment.

    Attributes:
        log: what it has written so far, on standard output and standard error.

    """

    def __init__(self, *arguments: str, folder: Path, command: Sequence[str] = AUTHZ, **variables: str) -> None:
        self._process = subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env=environment(variables),
        )
        self.log: list[str] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def peak_memory(self) -> int:
        """The most memory that it has had so far, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024

    @property
    def text(self) -> str:
        return "".join(self.log)

    def events(self) -> list[dict[str, Any]]:
        """Return what it has logged so far, as JSON."""
        return [json.loads(line) for line in self.log if line.startswith("{")]

    def await_line(self, wanted: Callable[[str], object]) -> str:
        """Return the next line that is ``wanted``."""
        with self._watched():
            for line in self._lines():
                if wanted(line):
                    return line
        raise AssertionError(f"it ended before its time:\n{self.text}")

    def await_event(self, name: str, **fields: object) -> dict[str, Any]:
        """Return the next event of that name and those fields."""
        line = self.await_line(lambda line: _is_event(line, {"event": name, **fields}))
        found: dict[str, Any] = json.loads(line)
        return found

    def send(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Return its exit code, once it has ended."""
        with self._watched():
            for _ in self._lines():
                pass
            return self._process.wait()

    def end(self) -> None:
        """End it politely: only then are there figures of what its processes have covered."""
        self.send(signal.SIGTERM)
        self.wait()
        self.__exit__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _lines(self) -> Iterator[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.log.append(line)
            yield line

    def _watched(self) -> "_Watch":
        return _Watch(self._process)


class _Watch:
    """Ends a process that takes too long, so that a test that reads from it does not wait for ever."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._timer = threading.Timer(PATIENCE, process.kill)

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()


def _is_event(line: str, fields: Mapping[str, object]) -> bool:
    return line.startswith("{") and fields.items() <= json.loads(line).items()
