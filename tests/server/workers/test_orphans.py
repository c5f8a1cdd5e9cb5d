"""Workers whose supervisor is killed end at once, whatever they are doing."""

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from authz.demo.issuer.signing import SigningKey
from tests.doubles import eventually, jwks
from tests.programs import Program
from tests.server.serving.serving import LOOPBACK
from tests.server.workers.test_workers import SERVE, Workers, is_running

# Far longer than a test waits: a worker that drained to the end would not be gone.
DRAIN = ("--drain", "3600")


@pytest.fixture
def keys(tmp_path: Path, ec_key: SigningKey) -> tuple[str, ...]:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    return ("--jwks", "jwks.json")


def workers_of(supervisor: Program) -> set[int]:
    """Return the processes that a supervisor has started and that still run."""
    return {int(pid) for pid in Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()}


def are_gone(pids: set[int]) -> bool:
    return not any(map(is_running, pids))


@contextlib.contextmanager
def pipe(path: Path) -> Iterator[Callable[[], bool]]:
    """Make a named pipe; yield a function that says whether a process reads it, and then keeps that process waiting."""
    os.mkfifo(path)
    with contextlib.ExitStack() as ending:

        def is_read() -> bool:
            try:
                ending.callback(os.close, os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                return False
            return True

        yield is_read


def test_while_they_start(tmp_path: Path, keys: tuple[str, ...]) -> None:
    flags = (*keys, "--policy", "policy.json", "--workers", "2", "--listen", LOOPBACK)
    with pipe(tmp_path / "policy.json") as is_read, Program(*SERVE, *flags, folder=tmp_path) as supervisor:
        supervisor.await_event("worker_started", worker=1)
        pids = workers_of(supervisor)
        assert eventually(is_read, 0.05)
        supervisor.send(signal.SIGKILL)

        assert len(pids) == 2
        assert eventually(lambda: are_gone(pids), 0.05)


def test_while_one_drains_and_another_waits_for_its_turn(tmp_path: Path, keys: tuple[str, ...]) -> None:
    with Workers(tmp_path, *keys, *DRAIN) as workers:
        workers.until(lambda: workers.serving() == {0, 1})
        first = workers_of(workers.program)
        workers.program.send(signal.SIGHUP)
        workers.until(lambda: workers.serving() == {1})
        pids = workers_of(workers.program)
        workers.program.send(signal.SIGKILL)

        assert len(pids - first) == 1
        assert pids > first
        assert eventually(lambda: are_gone(pids), 0.05)


def test_while_all_drain(tmp_path: Path, keys: tuple[str, ...]) -> None:
    with Workers(tmp_path, *keys, *DRAIN) as workers:
        workers.until(lambda: workers.serving() == {0, 1})
        pids = workers_of(workers.program)
        workers.program.send(signal.SIGTERM)
        workers.until(lambda: workers.serving() == set())
        workers.program.send(signal.SIGKILL)

        assert eventually(lambda: are_gone(pids), 0.05)
