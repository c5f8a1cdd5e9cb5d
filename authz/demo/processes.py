"""The processes of the demonstration: programs of ours, and a real Envoy."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2

from authz.demo import children
from authz.demo.envoy_binary import envoy_path
from authz.settings import variables

_START_SECONDS = 120.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.02


class StackError(RuntimeError):
    """A process of the demonstration did not start, or has failed; the message holds the end of its log."""


class Process:
    """A child process whose output goes to a file."""

    def __init__(self, name: str, command: Sequence[str | Path], folder: Path) -> None:
        self.name = name
        self.output = folder / f"{name}.log"
        with self.output.open("wb") as log:
            # In a session of its own: Ctrl-C reaches only the demonstration, which ends the others in order.
            self._child = subprocess.Popen(  # noqa: S603 - our own programs
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=_environment(),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._child.pid

    def text(self) -> str:
        """Return all output so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of output that are JSON objects."""
        found = []
        for line in self.text().splitlines():
            with contextlib.suppress(ValueError):
                value = json.loads(line)
                if isinstance(value, dict):
                    found.append(value)
        return found

    def wait_for(self, look: Callable[[], Any]) -> Any:
        """Return what ``look`` returns, once that is true."""
        deadline = time.monotonic() + _START_SECONDS
        while not (found := look()):
            if self._child.poll() is not None or time.monotonic() > deadline:
                raise StackError(f"{self.name} did not start:\n{self.text()[-2000:]}")
            time.sleep(_POLL_SECONDS)
        return found

    def kill(self) -> None:
        """End the process by force."""
        self._child.kill()
        self._child.wait()

    def stop(self) -> None:
        """End the process: with SIGTERM, then by force."""
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._child.kill()
        self._child.wait()


def run(command: Sequence[str | Path], folder: Path) -> str:
    """Run a program of ours to its end, and return what it has printed.

    Raises:
        StackError: it has failed; the message holds what it has printed.

    """
    done = subprocess.run(  # noqa: S603 - as above
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=_START_SECONDS,
        cwd=folder,
        env=_environment(),
    )
    if done.returncode:
        raise StackError(f"{' '.join(map(str, command))} failed:\n{done.stdout}")
    return done.stdout.strip()


def _environment() -> dict[str, str]:
    # Without the user's settings: the demonstration has its own.
    inherited = {name: value for name, value in os.environ.items() if not variables.is_ours(name)}
    return {**inherited, **children.mark()}


class Envoy(Process):
    """A real Envoy.

    Args:
        config: its bootstrap, with an administration interface; as data, or as the text of a file.
        folder: where its files go.
        more: more options.

    """

    def __init__(self, config: Mapping[str, Any] | str, folder: Path, *more: str) -> None:
        # JSON is YAML, too.
        path = folder / "envoy.yaml"
        path.write_text(config if isinstance(config, str) else json.dumps(config, indent=2), encoding="utf-8")
        self._admin = folder / "envoy-admin"
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"]
        command: list[str | Path] = [
            envoy_path(),
            "--config-path",
            path,
            "--admin-address-path",
            self._admin,
            *options,
            *more,
        ]
        super().__init__("envoy", command, folder)

    def addresses(self) -> dict[str, str]:
        """Return ``HOST:PORT`` of each listener, once they listen."""
        found: dict[str, str] = self.wait_for(self._listeners)
        return found

    def count(self, name: str) -> int:
        """Return one of its counters."""
        return int(self._ask("/stats", filter=f"^{name}$").text.rpartition(": ")[2])

    def ask(self, path: str, **parameters: str) -> Any:
        """Return what its administration interface says in JSON."""
        return self._ask(path, **parameters).json()

    def _ask(self, path: str, **parameters: str) -> httpx2.Response:
        url = f"http://{self._admin.read_text(encoding='utf-8')}{path}"
        return httpx2.get(url, params=parameters, timeout=_START_SECONDS, trust_env=False)

    def _listeners(self) -> dict[str, str]:
        try:
            url = f"http://{self._admin.read_text(encoding='utf-8')}"
            # Their ports are known before Envoy listens there.
            httpx2.get(f"{url}/ready", timeout=1, trust_env=False).raise_for_status()
            answer = httpx2.get(f"{url}/listeners", params={"format": "json"}, timeout=1, trust_env=False).json()
        except (OSError, httpx2.HTTPError, httpx2.InvalidURL, ValueError):
            return {}
        return {
            status["name"]: f"127.0.0.1:{status['local_address']['socket_address']['port_value']}"
            for status in answer.get("listener_statuses", ())
        }
