"""``authz healthcheck``: where it asks, what it believes, and its exit codes."""

import json
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from authz.demo.issuer.signing import SigningKey
from tests import programs
from tests.certificates import Authority
from tests.doubles import AUDIENCE, ISSUER, jwks
from tests.programs import Program

LOOPBACK = "127.0.0.1:0"
SERVE = ("serve", "--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256", "--log-format", "json")
# Port 9 (discard) has no server.
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def folder(tmp_path: Path, ec_key: SigningKey) -> Path:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    authority = Authority()
    own = authority.issue_for_loopback()
    (tmp_path / "ca.pem").write_bytes(authority.root)
    (tmp_path / "tls.crt").write_bytes(own.chain)
    (tmp_path / "tls.key").write_bytes(own.key)
    return tmp_path


def said(folder: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    done = programs.run("healthcheck", *arguments, folder=folder, **variables)
    assert done.stderr == "" or done.stdout == ""
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("engine", ["grpcio", "native"])
def test_a_server_that_can_decide_is_healthy(folder: Path, engine: str) -> None:
    flags = ("--jwks", "jwks.json", "--listen", LOOPBACK, "--engine", engine, "--http-listen", LOOPBACK)
    with Program(*SERVE, *flags, folder=folder) as server:
        probes = server.await_event("probes")["address"]
        [address] = server.await_event("listening")["addresses"]
        server.await_event("health", status="SERVING")
        port = address.rpartition(":")[2]

        assert said(folder, AUTHZ_LISTEN=address) == (0, "SERVING\n")
        assert said(folder, AUTHZ_LISTEN=f"0.0.0.0:{port},tls:0.0.0.0:1") == (0, "SERVING\n")
        assert said(folder, "--listen", address, AUTHZ_LISTEN="127.0.0.1:1") == (0, "SERVING\n")
        (folder / "authz.yaml").write_text(f"listen: ['{address}']\nhttp_listen: {probes}\n")
        assert said(folder, "--config", "authz.yaml") == (0, "SERVING\n")
        assert said(folder, "--http", AUTHZ_CONFIG="authz.yaml") == (0, "SERVING\n")


def test_a_server_without_keys_is_not(folder: Path) -> None:
    flags = ("--jwks-url", f"{NOBODY}/jwks", "--listen", LOOPBACK, "--http-listen", LOOPBACK)
    with Program(*SERVE, *flags, folder=folder) as server:
        probes = server.await_event("probes")["address"]
        [address] = server.await_event("listening")["addresses"]
        server.await_event("health", status="NOT_SERVING")

        assert said(folder, "--listen", address) == (1, f"NOT_SERVING {address}\n")
        assert said(folder, "--http", "--http-listen", probes) == (1, "NOT_SERVING key_set_unavailable\n")


def test_every_worker_is_asked_on_its_socket(folder: Path) -> None:
    flags = ("--jwks", "jwks.json", "--listen", "unix:a.sock", "--workers", "2")
    with Program(*SERVE, *flags, folder=folder) as server:
        # The supervisor says so once every worker serves.
        server.await_event("listening")
        known = {"AUTHZ_LISTEN": "127.0.0.1:9,unix:a.sock"}

        assert said(folder, AUTHZ_WORKERS="2", **known) == (0, "SERVING\n")
        assert said(folder, "--workers", "3", **known)[0] == 3
        assert said(folder, **known)[0] == 3


@pytest.mark.parametrize("asks_clients", [False, True], ids=["tls", "mutual-tls"])
def test_the_certificate_of_the_settings_is_believed(folder: Path, *, asks_clients: bool) -> None:
    settings = {"AUTHZ_TLS_CERT_FILE": "tls.crt", "AUTHZ_TLS_KEY_FILE": "tls.key"}
    settings |= {"AUTHZ_TLS_CLIENT_CA_FILE": "ca.pem"} if asks_clients else {}
    flags = ("--jwks", "jwks.json", "--listen", f"tls:{LOOPBACK}")
    with Program(*SERVE, *flags, folder=folder, **settings) as server:
        [address] = server.await_event("listening")["addresses"]
        server.await_event("health", status="SERVING")
        other = Authority()
        (folder / "other.pem").write_bytes(other.root)

        assert said(folder, "--listen", address, **settings) == (0, "SERVING\n")
        assert said(folder, "--listen", address, "--ca-file", "ca.pem", **settings) == (0, "SERVING\n")
        assert said(folder, "--listen", address, "--ca-file", "other.pem", **settings)[0] == 3
        # As a client that does not expect TLS.
        assert said(folder, "--listen", address.removeprefix("tls:"), **settings)[0] == 3


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--listen", "127.0.0.1:9"), 3, "127.0.0.1:9: it cannot be reached, or needs TLS or a certificate"),
        (("--listen", "unix:no.sock"), 3, "unix:no.sock: it cannot be reached"),
        (("--http", "--http-listen", "127.0.0.1:9"), 3, "127.0.0.1:9: no answer of /readyz"),
        (("--http",), 2, "http_listen: missing; set AUTHZ_HTTP_LISTEN"),
        (("--listen", "127.0.0.1:0"), 2, "listen: '127.0.0.1:0' is any free port; name the port"),
        (("--listen", "9191"), 2, "listen: '9191' is neither HOST:PORT"),
        (("--timeout", "0"), 2, "timeout: must be seconds"),
        (("--timeout", "nan"), 2, "timeout: must be seconds"),
        (("--workers", "0"), 2, "workers: must be from 1 to 64"),
        (("--workers", "two"), 2, "argument --workers: invalid int value"),
        (("--config", "no.yaml"), 2, "no.yaml: cannot be read"),
        (("--listen", "tls:127.0.0.1:9", "--cert-file", "tls.crt"), 2, "cert_file: give --cert-file and --key-file"),
        (("--listen", "tls:127.0.0.1:9", "--ca-file", "no.pem"), 2, "ca_file: 'no.pem' cannot be read"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(folder: Path, arguments: Sequence[str], status: int, message: str) -> None:
    found, line = said(folder, *arguments)

    assert (found, line.count("\n")) == (status, 1)
    assert line.startswith(f"authz: {message}")


@pytest.fixture
def silent() -> Iterator[str]:
    """Return the address of what accepts connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("flag", [(), ("--http",)], ids=["grpc", "http"])
def test_what_does_not_answer_is_not_waited_for(folder: Path, silent: str, flag: tuple[str, ...]) -> None:
    status, line = said(folder, *flag, "--listen", silent, "--http-listen", silent, "--timeout", "0.2")

    assert (status, line.count("\n")) == (3, 1)
