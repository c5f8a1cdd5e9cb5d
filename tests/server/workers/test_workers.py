"""Several processes that look like one: what operators, Envoy and Prometheus see of them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, get_args

import grpc
import httpx2
import pytest

from authz.demo.issuer.signing import SigningKey
from authz.server.serving.server import EngineName
from authz.v1.audit_pb2 import WatchRequest
from authz.v1.audit_pb2_grpc import AuditStub
from authz.v1.decision_pb2 import Decision
from tests import programs
from tests.doubles import AUDIENCE, ISSUER, eventually, jwks, m2m_claims
from tests.envoy.check.messages import GRPC, bearer, in_headers
from tests.programs import PATIENCE, Program
from tests.server.serving.serving import LOOPBACK, KeyServer, ask

SERVE = ("serve", "--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256", "--log-format", "json")

ALLOWED = 'authz_checks_total{reason="",verdict="allowed"}'
RESTARTS = "authz_worker_restarts_total"


class Workers:
    """A supervisor and its two workers; a context manager.

    Args:
        folder: where it runs.
        flags: its other flags.

    """

    def __init__(self, folder: Path, *flags: str) -> None:
        served = ("--workers", "2", "--listen", LOOPBACK, "--http-listen", LOOPBACK)
        # One that is killed leaves its files behind.
        self.program = Program(*SERVE, *flags, *served, folder=folder, TMPDIR=str(folder))

    def __enter__(self) -> Self:
        try:
            self._probes = httpx2.Client(
                base_url=f"http://{self.program.await_event('probes')['address']}", trust_env=False, timeout=PATIENCE
            )
            self.addresses: list[str] = self.program.await_event("listening")["addresses"]
        except BaseException:
            self.program.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._probes.close()
        self.program.end()

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.program.events() if event["event"] == name]

    def pids(self) -> dict[int, int]:
        """Return the last process of each worker."""
        return {event["worker"]: event["pid"] for event in self.events("worker_started")}

    def serving(self) -> set[int]:
        """Return which workers serve, as far as they have told."""
        serving: set[int] = set()
        for event in self.program.events():
            if event["event"] == "worker_started" or event.get("status") == "NOT_SERVING":
                serving.discard(event.get("worker", -1))
            elif event.get("status") == "SERVING":
                serving.add(event["worker"])
        return serving

    def until(self, condition: Callable[[], object]) -> None:
        """Read what they tell until ``condition`` holds."""
        if not condition():
            self.program.await_line(lambda _: condition())

    def get(self, path: str) -> httpx2.Response:
        return self._probes.get(path)

    def figure(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0


def check(address: str, token: str) -> int:
    """Return the code of the answer to one check."""
    return ask(address, in_headers(GRPC, bearer(token)))


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # The dead whom nobody has asked about yet are still listed.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def token(ec_key: SigningKey) -> str:
    return ec_key.sign(m2m_claims(time.time()))


@pytest.fixture
def keys(tmp_path: Path, ec_key: SigningKey) -> tuple[str, ...]:
    """Return the flags for keys that never change."""
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    return ("--jwks", "jwks.json")


@pytest.fixture(scope="module", params=get_args(EngineName))
def workers(
    tmp_path_factory: pytest.TempPathFactory, ec_key: SigningKey, request: pytest.FixtureRequest
) -> Iterator[Workers]:
    """Return workers that serve; they take time to start, so the tests of one engine share them."""
    folder: Path = tmp_path_factory.mktemp("workers")
    (folder / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    sockets = ("--listen", f"unix:{folder}/authz.sock", "--audit-listen", f"unix:{folder}/audit.sock")
    flags = ("--jwks", "jwks.json", "--engine", request.param, *sockets)
    with Workers(folder, *flags) as workers:
        workers.until(lambda: workers.serving() == {0, 1})
        yield workers


# ---- One server of several processes ----


def test_workers_share_a_port_and_have_sockets_of_their_own(workers: Workers, token: str) -> None:
    first, second, tcp = workers.addresses
    before = workers.figure(ALLOWED)
    codes = [check(address, token) for address in workers.addresses for _ in range(5)]

    assert codes == [0] * 15
    assert (first.removesuffix(".0"), first[-2:]) == (second.removesuffix(".1"), ".0")
    assert re.fullmatch(r"127\.0\.0\.1:[1-9]\d*", tcp)
    assert len(workers.events("listening")) == 1
    assert eventually(lambda: workers.figure(ALLOWED) == before + 15, 0.05)


def test_state_of_all_is_known_in_one_place(workers: Workers) -> None:
    assert workers.get("/readyz").json() == {"ready": True}
    assert eventually(
        lambda: workers.figure('authz_ready{worker="0"}') == workers.figure('authz_ready{worker="1"}') == 1
    )
    assert workers.figure("authz_workers") == 2
    # Each process for itself, whichever Prometheus asks.
    memory = {
        name: workers.figure(f'process_resident_memory_bytes{{worker="{name}"}}') for name in ("0", "1", "supervisor")
    }
    assert min(memory.values()) > 1_000_000


def test_worker_that_dies_is_started_again_while_the_other_goes_on(workers: Workers, token: str) -> None:
    own, others, _ = workers.addresses
    first, restarts = workers.pids(), workers.figure(RESTARTS)
    os.kill(first[0], signal.SIGKILL)
    # The other's socket: on the shared port a connection may still have been the dead one's.
    meanwhile = check(others, token)
    workers.until(lambda: workers.pids()[0] != first[0] and 0 in workers.serving())

    assert meanwhile == check(own, token) == 0
    assert workers.pids()[1] == first[1]
    assert [(event["worker"], event["status"]) for event in workers.events("worker_died")] == [(0, -signal.SIGKILL)]
    assert (workers.figure("authz_workers"), workers.figure(RESTARTS)) == (2, restarts + 1)


def test_hangup_replaces_every_worker_one_by_one(workers: Workers, token: str) -> None:
    first, restarts = workers.pids(), workers.figure(RESTARTS)
    workers.program.send(signal.SIGHUP)
    workers.until(lambda: workers.events("workers_replaced"))
    second = workers.pids()

    assert set(first.values()) & set(second.values()) == set()
    assert not any(map(is_running, first.values()))
    assert [check(address, token) for address in workers.addresses] == [0, 0, 0]
    assert workers.figure(RESTARTS) == restarts


def test_sockets_for_watchers_are_handed_on_as_those_of_the_server(workers: Workers, token: str) -> None:
    folder = Path(workers.addresses[0].removeprefix("unix:")).parent
    before = {path.name: path.lstat().st_ino for path in folder.glob("audit.sock*")}
    restarts = len(workers.events("workers_replaced"))
    workers.program.send(signal.SIGHUP)
    workers.until(lambda: len(workers.events("workers_replaced")) > restarts)
    after = {path.name: path.lstat() for path in folder.glob("audit.sock*")}

    assert before.keys() == after.keys() == {"audit.sock.0", "audit.sock.1"}
    assert [found.st_mode & 0o777 for found in after.values()] == [0o600, 0o600]
    for number, address in enumerate(workers.addresses[:2]):
        with grpc.insecure_channel(f"unix:{folder}/audit.sock.{number}") as channel:
            watching: Any = AuditStub(channel)
            told = watching.Watch(WatchRequest(), timeout=PATIENCE)
            told.initial_metadata()
            check(address, token)
            assert next(told).decision.verdict == Decision.VERDICT_ALLOWED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_end_is_the_end_of_all(tmp_path: Path, keys: tuple[str, ...], number: int) -> None:
    with Workers(tmp_path, *keys) as workers:
        pids = workers.pids()
        workers.program.send(number)

        assert workers.program.wait() == 0
        assert not any(map(is_running, pids.values()))
        assert (workers.events("worker_died"), workers.program.events()[-1]["event"]) == ([], "stopped")


def test_workers_end_with_a_supervisor_that_is_killed(tmp_path: Path, keys: tuple[str, ...]) -> None:
    with Workers(tmp_path, *keys) as workers:
        pids = workers.pids()
        workers.program.send(signal.SIGKILL)

        assert eventually(lambda: not any(map(is_running, pids.values())), 0.05)


@pytest.mark.parametrize("engine", get_args(EngineName))
def test_worker_that_hangs_is_replaced(tmp_path: Path, keys: tuple[str, ...], token: str, engine: str) -> None:
    flags = ("--engine", engine, "--worker-timeout", "5", "--listen", f"unix:{tmp_path}/a.sock")
    with Workers(tmp_path, *keys, *flags) as workers:
        workers.until(lambda: workers.serving() == {0, 1})
        first = workers.pids()
        os.kill(first[0], signal.SIGSTOP)
        # The other's socket: the kernel still gives the one that hangs its share of the port.
        meanwhile = check(workers.addresses[1], token)
        workers.until(lambda: workers.pids()[0] != first[0] and 0 in workers.serving())

        assert meanwhile == check(workers.addresses[0], token) == 0
        assert workers.pids()[1] == first[1]
        assert [(event["worker"], event["pid"]) for event in workers.events("worker_hung")] == [(0, first[0])]
        assert (workers.figure("authz_worker_hangs_total"), workers.figure(RESTARTS)) == (1, 1)


def test_supervisor_that_did_not_run_blames_no_worker(tmp_path: Path, keys: tuple[str, ...], token: str) -> None:
    with Workers(tmp_path, *keys, "--worker-timeout", "2") as workers:
        workers.until(lambda: workers.serving() == {0, 1})
        first = workers.pids()
        workers.program.send(signal.SIGSTOP)
        time.sleep(4.0)
        workers.program.send(signal.SIGCONT)
        alive = workers.get("/readyz").status_code

        assert (alive, check(workers.addresses[0], token)) == (200, 0)
        assert (workers.pids(), workers.events("worker_hung")) == (first, [])


# ---- What is worth a replacement ----


def test_worker_that_could_not_decide_replaces_nobody(tmp_path: Path, ec_key: SigningKey, token: str) -> None:
    with KeyServer(ec_key) as keys, Workers(tmp_path, "--jwks-url", keys.url) as workers:
        workers.until(lambda: workers.serving() == {0, 1})
        first = workers.pids()
        keys.release()
        workers.program.send(signal.SIGHUP)
        workers.until(lambda: workers.events("successor_unable"))

        assert workers.pids() == first
        assert check(workers.addresses[0], token) == 0
        keys.release(ec_key)
        workers.program.send(signal.SIGHUP)
        workers.until(lambda: workers.events("workers_replaced"))
        assert check(workers.addresses[0], token) == 0


def test_configuration_that_has_become_wrong_replaces_nobody(tmp_path: Path, keys: tuple[str, ...], token: str) -> None:
    with Workers(tmp_path, *keys) as workers:
        first = workers.pids()
        (tmp_path / "jwks.json").write_text("{")
        workers.program.send(signal.SIGHUP)
        workers.until(lambda: workers.events("successor_unable"))

        assert workers.events("successor_unable")[0]["error"].startswith("jwks: file 'jwks.json' is not JSON")
        assert workers.pids() == first
        assert check(workers.addresses[0], token) == 0


# ---- What cannot work ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param(("--jwks", "nowhere.json"), "authz: jwks: file 'nowhere.json' cannot be read", id="jwks"),
        pytest.param(
            ("--listen", "unix:/nowhere/authz.sock"), "authz: listen: 'unix:/nowhere/authz.sock.", id="socket"
        ),
        pytest.param(("--listen", "203.0.113.1:0"), "authz: listen: '203.0.113.1:0' cannot be bound", id="address"),
        pytest.param(("--listen", "nowhere.invalid:0"), "authz: listen: 'nowhere.invalid:0' cannot be", id="host"),
        pytest.param(("--workers", "0"), "authz: workers: ", id="none"),
    ],
)
def test_wrong_configuration_is_said_once(tmp_path: Path, flags: Sequence[str], message: str) -> None:
    done = programs.run(*SERVE, "--listen", LOOPBACK, *flags, folder=tmp_path, AUTHZ_WORKERS="2")
    told = [line for line in done.stderr.splitlines() if not line.startswith("{")]

    assert done.returncode == 2
    assert len(told) == 1
    assert told[0].startswith(message)


def test_port_of_another_is_not_shared_with_it(tmp_path: Path, keys: tuple[str, ...]) -> None:
    with Workers(tmp_path, *keys) as workers:
        flags = ("--listen", workers.addresses[0], "--workers", "2")
        done = programs.run(*SERVE, *keys, *flags, folder=tmp_path)

    assert (done.returncode, "Address already in use" in done.stderr) == (2, True)


def test_supervisor_never_loads_grpc() -> None:
    program = (
        "import sys, authz.cli.serve, authz.server.supervisor_process;"
        "import authz.server.operations.metrics, authz.server.operations.probes;"
        "print({'grpc', 'pygrpc_native'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=PATIENCE)

    assert done.stdout == "set()\n"
