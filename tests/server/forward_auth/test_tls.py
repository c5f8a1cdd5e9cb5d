"""The check over HTTP with TLS: who may ask, and certificates that change while it serves."""

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from authz.demo.issuer.signing import SigningKey
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.server.serving.certificates import Certificates
from tests import programs
from tests.certificates import Authority, Certificate
from tests.doubles import AUDIENCE, ISSUER, jwks, m2m_claims
from tests.programs import PATIENCE, Program
from tests.server.forward_auth.http1 import Client, head
from tests.server.forward_auth.site import asked_over_http
from tests.store.engines import free_port

TLS = "tls:127.0.0.1:0"


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def folder(tmp_path: Path, authority: Authority) -> Path:
    write(tmp_path, authority.issue_for_loopback(), authority)
    return tmp_path


def write(folder: Path, certificate: Certificate, clients: Authority) -> None:
    (folder / "cert.pem").write_bytes(certificate.chain)
    (folder / "key.pem").write_bytes(certificate.key)
    (folder / "ca.pem").write_bytes(clients.root)


def certificates(folder: Path, *, mutual: bool = True) -> Certificates:
    cert, key, ca = (str(folder / name) for name in ("cert.pem", "key.pem", "ca.pem"))
    return Certificates(cert, key, ca if mutual else None)


@pytest.fixture
def judge(ec_key: SigningKey) -> Authorizer:
    return Authorizer(Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(ec_key), algorithms=["ES256"]))


Ask = Callable[..., int]


@pytest.fixture
def ask(folder: Path) -> Ask:
    """Return what asks as the owner of a certificate, and returns the status of the answer; 0 if there is none."""

    def ask(address: str, server: Authority, own: Certificate | None, *headers: str) -> int:
        context = ssl.create_default_context(cadata=server.root.decode())
        if own is not None:
            (folder / "own.pem").write_bytes(own.chain + own.key)
            context.load_cert_chain(folder / "own.pem")
        host, port = address.removeprefix("tls:").split(":")
        try:
            with (
                socket.create_connection((host, int(port)), PATIENCE) as plain,
                context.wrap_socket(plain, server_hostname=host) as secured,
            ):
                secured.sendall(head("/v1", *headers, "Connection: close"))
                answer = secured.recv(65_536)
                return int(answer.split(b" ")[1]) if answer else 0
        except OSError:
            return 0

    return ask


@pytest.fixture
def served(judge: Authorizer, folder: Path) -> Iterator[str]:
    with asked_over_http(judge, "none", TLS, certificates(folder)) as address:
        yield address


def test_mutual_tls_answers_proxies_of_the_authority_only(
    served: str, authority: Authority, ask: Ask, ec_key: SigningKey
) -> None:
    good = f"Authorization: Bearer {ec_key.sign(m2m_claims(time.time()))}"

    assert served.startswith("tls:127.0.0.1:")
    assert ask(served, authority, authority.issue(), good) == 200
    assert ask(served, authority, authority.issue()) == 401
    assert ask(served, authority, Authority().issue(), good) == 0
    assert ask(served, authority, None, good) == 0


def test_without_authorities_no_certificate_is_asked_for(
    judge: Authorizer, folder: Path, authority: Authority, ask: Ask
) -> None:
    with asked_over_http(judge, "none", TLS, certificates(folder, mutual=False)) as address:
        assert ask(address, authority, None) == 401


def test_no_plaintext_is_answered(served: str) -> None:
    with Client(served.removeprefix("tls:")) as client:
        client.send(head("/v1"))

        assert b"HTTP" not in client.rest()


def test_new_certificates_and_authorities_are_in_force_without_a_restart(
    served: str, folder: Path, authority: Authority, ask: Ask
) -> None:
    before, after = authority.issue(), Authority()
    assert ask(served, authority, before) == 401

    write(folder, after.issue_for_loopback(), after)

    assert ask(served, after, after.issue()) == 401
    assert ask(served, after, before) == 0
    assert ask(served, authority, before) == 0


def test_files_that_cannot_be_used_leave_the_last_good_ones_in_force(
    served: str, folder: Path, authority: Authority, ask: Ask
) -> None:
    own = authority.issue()
    (folder / "key.pem").write_bytes(Authority().issue().key)
    assert ask(served, authority, own) == 401
    (folder / "cert.pem").unlink()
    assert ask(served, authority, own) == 401

    write(folder, authority.issue_for_loopback(), authority)

    assert ask(served, authority, own) == 401


def test_half_a_handshake_holds_up_no_other(served: str, authority: Authority, ask: Ask) -> None:
    with Client(served.removeprefix("tls:")) as client:
        client.send(bytes([0x16, 3, 1]))

        assert ask(served, authority, authority.issue()) == 401


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_has_tls_for_other_proxies_alone(
    folder: Path, authority: Authority, ask: Ask, ec_key: SigningKey, workers: str
) -> None:
    port = free_port()
    flags = ("--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256", "--log-format", "json")
    asked = ("--forward-auth", f"tls:127.0.0.1:{port}", "--forward-auth-headers", "none", "--workers", workers)
    files = ("--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-client-ca-file", "ca.pem")
    listen = ("--jwks", json.dumps(jwks(ec_key)), "--listen", "127.0.0.1:0")
    with Program("serve", *flags, *listen, *asked, *files, folder=folder, TMPDIR=str(folder)) as program:
        program.await_event("listening")

        assert ask(f"127.0.0.1:{port}", authority, authority.issue()) == 401
        assert ask(f"127.0.0.1:{port}", authority, None) == 0
        program.end()


def test_tls_needs_a_certificate(folder: Path) -> None:
    asked = ("--forward-auth", "tls:127.0.0.1:9193", "--forward-auth-headers", "none", "--check-config")
    done = programs.run("serve", "--issuer", ISSUER, "--audience", AUDIENCE, *asked, folder=folder)

    assert done.returncode == 2
    assert done.stderr.startswith("authz: tls_cert_file: missing; 'tls:127.0.0.1:9193' needs")
