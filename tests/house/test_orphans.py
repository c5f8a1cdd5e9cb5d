"""Whatever is killed with SIGKILL leaves no process behind."""

import json
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from authz.demo.issuer.signing import SigningKey
from tests.doubles import AUDIENCE, ISSUER, eventually, jwks
from tests.programs import Program

ROOT = Path(__file__).parents[2]
PYTEST = (
    sys.executable,
    "-m",
    "pytest",
    "-p",
    "no:cacheprovider",
    "--no-cov",
    "-q",
    "-s",
    "-c",
    ROOT / "pyproject.toml",
)
HANGING = """
import subprocess, sys, time, pytest
@pytest.mark.process
@pytest.mark.parametrize("number", range(2))
def test_that_hangs(number):
    sleep = [sys.executable, "-S", "-c", "import time; time.sleep(3600)"]
    subprocess.Popen(sleep, start_new_session=True)
    subprocess.Popen([sys.executable, "-c", f"import subprocess; subprocess.run({sleep})"])
    time.sleep(3600)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing watches over children")

Begin = Callable[..., Program]


class Family:
    """A program and all that it starts, which have a variable that no other process has."""

    def __init__(self) -> None:
        self.variables = {"TESTS_FAMILY": uuid.uuid4().hex}

    def running(self) -> dict[int, str]:
        """Return the command of each process that runs, by its number."""
        [mark] = (f"{name}={value}".encode() for name, value in self.variables.items())
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
        return found

    def counts(self, *words: str) -> list[int]:
        """Return how many of the running commands have each word."""
        return [sum(word in command for command in self.running().values()) for word in words]


@pytest.fixture
def family() -> Family:
    return Family()


@pytest.fixture
def begin(tmp_path: Path, family: Family) -> Iterator[Begin]:
    """Return a function that starts the first of the family."""
    begun: list[Program] = []

    def start(*arguments: str, **options: object) -> Program:
        begun.append(Program(*arguments, folder=tmp_path, TMPDIR=str(tmp_path), **options, **family.variables))
        return begun[-1]

    yield start
    for program in begun:
        program.__exit__()


@pytest.mark.envoy
@pytest.mark.parametrize("moment", ["starts", "runs"])
def test_demonstration_that_is_killed_ends_its_servers(begin: Begin, family: Family, moment: str) -> None:
    demo = begin("demo", "--keep")
    if moment == "runs":
        demo.await_line(lambda line: line.startswith("issuer http"))
        assert family.counts("authz serve", "authz.demo.backend", "authz issuer", "envoy.yaml") == [1, 1, 1, 1]
    else:
        eventually(lambda: family.counts("authz issuer") == [1])

    demo.send(signal.SIGKILL)

    assert eventually(lambda: family.running() == {})


def begin_tests(begin: Begin, tmp_path: Path, *options: str) -> Program:
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "test_hangs.py").write_text(HANGING)
    (tmp_path / "test_hangs_too.py").write_text(HANGING)
    return begin(*options, str(tmp_path), command=PYTEST, PYTHONPATH=str(ROOT))


@pytest.mark.parametrize(("options", "at_once"), [((), 1), (("-n", "2", "--dist", "loadfile"), 2)])
def test_tests_that_are_killed_end_what_they_have_started(
    begin: Begin, family: Family, tmp_path: Path, options: tuple[str, ...], at_once: int
) -> None:
    tests = begin_tests(begin, tmp_path, *options)
    eventually(lambda: family.counts("sleep(3600)") == [3 * at_once])

    tests.send(signal.SIGKILL)

    assert eventually(lambda: family.running() == {})


def test_worker_of_the_tests_that_is_killed_ends_what_it_has_started(
    begin: Begin, family: Family, tmp_path: Path
) -> None:
    begin_tests(begin, tmp_path, "-n", "2", "--max-worker-restart", "0")
    eventually(lambda: family.counts("sleep(3600)") == [6])
    workers = [pid for pid, command in family.running().items() if "exec(eval(" in command]
    assert len(workers) == 2

    os.kill(workers[0], signal.SIGKILL)

    assert eventually(lambda: family.counts("sleep(3600)") == [3])
    os.kill(workers[1], signal.SIGKILL)
    assert eventually(lambda: family.running() == {})


@pytest.mark.parametrize("moment", ["starts", "runs", "drains"])
def test_supervisor_that_is_killed_ends_its_workers(
    begin: Begin, family: Family, tmp_path: Path, ec_key: SigningKey, moment: str
) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    flags = ("--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256", "--jwks", "jwks.json")
    served = ("--workers", "2", "--listen", "127.0.0.1:0", "--drain", "3600", "--log-format", "json")
    supervisor = begin("serve", *flags, *served)
    if moment == "starts":
        eventually(lambda: len(family.running()) == 3)
        supervisor.send(signal.SIGKILL)
        assert eventually(lambda: family.running() == {})
        return

    [address, *_] = supervisor.await_event("listening")["addresses"]
    with grpc.insecure_channel(address) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        next(watching)
        if moment == "drains":
            supervisor.send(signal.SIGTERM)
            supervisor.await_line(lambda line: "NOT_SERVING" in line)

        supervisor.send(signal.SIGKILL)

        assert eventually(lambda: family.running() == {})
