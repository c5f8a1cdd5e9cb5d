"""``authz serve --forward-auth``: its address, its workers, its end, and settings that cannot work."""

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx2
import pytest

from authz.cli import run
from authz.demo.issuer.signing import SigningKey
from tests import programs
from tests.doubles import AUDIENCE, ISSUER, eventually, jwks, m2m_claims
from tests.programs import PATIENCE, Program
from tests.server.forward_auth.http1 import Client, Upstream, ask, head
from tests.server.forward_auth.proxies import running
from tests.server.serving.serving import LOOPBACK
from tests.store.engines import free_port

SERVE = ("serve", "--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256", "--log-format", "json")
NONE = ("--forward-auth-headers", "none")

IMPOSSIBLE = pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--forward-auth", "127.0.0.1:9193"), "forward_auth_headers: missing"),
        (NONE, "forward_auth: missing"),
        (("--forward-auth", "tls:127.0.0.1:9193", *NONE), "tls_cert_file: missing"),
        (("--forward-auth", "9193", *NONE), "forward_auth: '9193' is neither HOST:PORT, tls:HOST:PORT nor unix:PATH"),
        (("--forward-auth", "unix:/nowhere/s", *NONE), "there is no such folder"),
        (("--forward-auth", "127.0.0.1:0", *NONE, "--workers", "2"), "needs a port other than 0"),
        (("--forward-auth", "unix:s", *NONE, "--listen", "unix:s"), "stands in listen, too"),
        (
            ("--forward-auth", "unix:s", *NONE, "--audit-listen", "unix:s"),
            "stands in audit_listen or access_log_listen",
        ),
        (("--forward-auth", "127.0.0.1:9193", "--forward-auth-headers", "any"), "original"),
    ],
)


@pytest.fixture
def keys(ec_key: SigningKey) -> tuple[str, ...]:
    return ("--jwks", json.dumps(jwks(ec_key)), "--listen", LOOPBACK)


@pytest.fixture
def good(ec_key: SigningKey) -> str:
    return f"Authorization: Bearer {ec_key.sign(m2m_claims(time.time()))}"


@pytest.fixture
def program(tmp_path: Path, keys: tuple[str, ...]) -> Iterator[Program]:
    flags = ("--forward-auth", LOOPBACK, *NONE, "--http-listen", LOOPBACK, "--decision-log", "all", "--drain", "3600")
    with Program(*SERVE, *keys, *flags, folder=tmp_path) as program:
        yield program


def test_a_server_answers_tells_and_counts(program: Program, good: str) -> None:
    probes = program.await_event("probes")["address"]
    address = program.await_event("forward_auth_listening")["address"]
    program.await_event("listening")

    assert [ask(address, "/v1/x", *headers, verb="PUT").status for headers in ([good], [])] == [200, 401]

    told = [json.loads(program.await_line(lambda line: '"door"' in line)) for _ in range(2)]
    assert [(one["door"], one["method"], one["verdict"]) for one in told] == [
        ("forward_auth", "/v1/x", "allowed"),
        ("forward_auth", "/v1/x", "denied"),
    ]
    figures = httpx2.get(f"http://{probes}/metrics", trust_env=False, timeout=PATIENCE).text
    assert 'authz_checks_total{reason="",verdict="allowed"} 1.0' in figures
    assert 'authz_checks_total{reason="token_missing",verdict="denied"} 1.0' in figures
    assert "authz_pending_checks 0.0" in figures


def test_a_server_that_drains_answers_until_its_end(program: Program, good: str) -> None:
    address = program.await_event("forward_auth_listening")["address"]
    program.await_event("health", status="SERVING")
    with Client(address) as client:
        client.send(head("/v1", good))
        assert client.read().status == 200

        program.send(signal.SIGTERM)
        program.await_event("health", reason="stopping")

        client.send(head("/v1", good))
        response = client.read()
        assert (response.status, response.one("connection")) == (200, "close")
    assert ask(address, "/v1", good).status == 200
    program.send(signal.SIGINT)
    assert program.wait() == 0


@pytest.mark.parametrize("is_socket", [False, True], ids=["port", "socket"])
def test_workers_share_a_port_and_have_sockets_of_their_own(
    tmp_path: Path, keys: tuple[str, ...], good: str, *, is_socket: bool
) -> None:
    address = f"unix:{tmp_path}/s" if is_socket else f"127.0.0.1:{free_port()}"
    own = [f"{address}.{number}" if is_socket else address for number in range(2)]
    with Program(
        *SERVE, *keys, "--forward-auth", address, *NONE, "--workers", "2", folder=tmp_path, TMPDIR=str(tmp_path)
    ) as program:
        told = [program.await_event("forward_auth_listening")["address"] for _ in own]
        assert sorted(told) == sorted(own)
        assert {ask(one, "/v1", good).status for one in own * 4} == {200}

        # One that dies is started again, on the same address.
        pids = {event["worker"]: event["pid"] for event in program.events() if event["event"] == "worker_started"}
        os.kill(pids[0], signal.SIGKILL)
        program.await_event("forward_auth_listening", worker=0)
        assert ask(own[0], "/v1", good).status == 200
        program.end()
    assert list(tmp_path.glob("s*")) == []


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one", "several"])
@pytest.mark.parametrize("is_socket", [False, True], ids=["port", "socket"])
def test_an_address_of_another_server_is_left_to_it(
    tmp_path: Path, keys: tuple[str, ...], good: str, *, is_socket: bool, workers: Sequence[str]
) -> None:
    address = f"unix:{tmp_path}/s" if is_socket else f"127.0.0.1:{free_port()}"
    first = f"{address}.1" if is_socket and workers else address
    with Program(*SERVE, *keys, "--forward-auth", first, *NONE, folder=tmp_path) as program:
        program.await_event("listening")

        second = programs.run(*SERVE, *keys, "--forward-auth", address, *NONE, *workers, folder=tmp_path)

        assert second.returncode == 2
        assert "forward_auth: " in second.stderr
        assert "cannot be bound" in second.stderr
        assert ask(first, "/v1", good).status == 200
        program.end()


def test_a_port_that_others_can_reach_is_a_warning(tmp_path: Path, keys: tuple[str, ...]) -> None:
    with Program(*SERVE, *keys, "--forward-auth", "0.0.0.0:0", *NONE, folder=tmp_path) as program:
        assert program.await_event("listening_without_tls")["level"] == "warning"
        program.end()


@IMPOSSIBLE
def test_settings_that_cannot_work_are_said(
    tmp_path: Path, ec_key: SigningKey, flags: Sequence[str], message: str
) -> None:
    done = programs.run(*SERVE, "--jwks", json.dumps(jwks(ec_key)), *flags, folder=tmp_path)

    assert done.returncode == 2
    # Workers have told before, where there are several.
    assert message in done.stderr.splitlines()[-1]


@IMPOSSIBLE
@pytest.mark.usefixtures("no_settings", "restored_logging")
def test_settings_that_cannot_work_are_said_without_serving(
    capsys: pytest.CaptureFixture[str], ec_key: SigningKey, flags: Sequence[str], message: str
) -> None:
    status = run((*SERVE, "--jwks", json.dumps(jwks(ec_key)), *flags, "--check-config"))

    assert status == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_proxy_asks_several_workers(tmp_path: Path, keys: tuple[str, ...], good: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    flags = ("--forward-auth", address, "--forward-auth-headers", "original", "--workers", "2")
    folder = tmp_path / "proxy"
    folder.mkdir()
    with (
        Program(*SERVE, *keys, *flags, folder=tmp_path, TMPDIR=str(tmp_path)) as program,
        Upstream() as upstream,
        running("nginx", folder, address, upstream.address) as proxy,
    ):
        program.await_event("listening")
        assert {ask(proxy, "/v1", good).status for _ in range(20)} == {200}

        # Workers are replaced one by one, and no request is lost.
        program.send(signal.SIGHUP)
        statuses = [ask(proxy, "/v1", good).status for _ in range(20)]
        program.await_event("workers_replaced")
        statuses += [ask(proxy, "/v1", good).status for _ in range(20)]
        assert {*statuses} == {200}
        assert eventually(lambda: upstream.count >= 60)
        program.end()
