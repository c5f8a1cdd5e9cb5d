"""Where the server listens: addresses, TLS whose certificate changes, and sockets that are never open too wide."""

import asyncio
import grp
import os
import pwd
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from authz.envoy.v3.external_auth_pb2 import CheckRequest
from authz.errors import ConfigError
from authz.judge.authorizer import Authorizer
from authz.runtime.network import unix_sockets
from authz.runtime.network.addresses import parse, parse_all
from authz.runtime.network.unix_sockets import Permissions, bind_socket
from authz.server.serving import server
from authz.server.serving.certificates import Certificates
from authz.server.serving.server import EngineName
from tests.certificates import Authority, Certificate
from tests.server.serving.serving import LOOPBACK, Served, serving

TLS = "tls:127.0.0.1:0"

# ---- Addresses ----


@pytest.mark.parametrize(
    ("text", "kind", "target", "is_local"),
    [
        ("127.0.0.1:9191", "tcp", "127.0.0.1:9191", True),
        ("localhost:0", "tcp", "localhost:0", True),
        ("[::1]:9191", "tcp", "[::1]:9191", True),
        ("0.0.0.0:9191", "tcp", "0.0.0.0:9191", False),
        ("authz.internal:9191", "tcp", "authz.internal:9191", False),
        ("tls:0.0.0.0:9191", "tls", "0.0.0.0:9191", False),
        ("tls:[::]:9191", "tls", "[::]:9191", False),
        ("unix:/run/authz.sock", "unix", "unix:/run/authz.sock", True),
        ("unix:authz.sock", "unix", "unix:authz.sock", True),
    ],
)
def test_address_is_read(text: str, kind: str, target: str, *, is_local: bool) -> None:
    address = parse("listen", text)

    assert (address.kind, address.target, address.is_local) == (kind, target, is_local)


@pytest.mark.parametrize(
    "text", ["", "tls:", "tls:9191", "tls:host", "tls::9191", "tls:unix:/a", "unix:", "host:70000"]
)
def test_what_is_no_address_is_a_wrong_setting(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^listen: '.*' is neither HOST:PORT, tls:HOST:PORT nor unix:PATH$"):
        parse("listen", text)


def test_socket_that_no_permissions_guard_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match=r"^listen: .* cannot be guarded by permissions; use unix:PATH$"):
        parse("listen", "unix-abstract:authz")


@pytest.mark.parametrize("listen", [["tls:a:1", "a:1"], ["unix:/a", "unix:/a"]])
def test_address_that_stands_twice_is_a_wrong_setting(listen: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^listen: .* is given twice"):
        parse_all(listen)


# ---- TLS ----


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def folder(tmp_path: Path, authority: Authority) -> Path:
    """Return a folder with a certificate of this machine, and the authority of clients."""
    write(tmp_path, authority.issue_for_loopback())
    (tmp_path / "ca.pem").write_bytes(authority.root)
    return tmp_path


def write(folder: Path, certificate: Certificate) -> Certificate:
    """Replace the files, one after the other, as a tool does that knows what it does."""
    for name, content in (("key.pem", certificate.key), ("cert.pem", certificate.chain)):
        (folder / f"{name}.new").write_bytes(content)
        (folder / f"{name}.new").replace(folder / name)
    return certificate


def certificates(folder: Path, *, mutual: bool = False) -> Certificates:
    return Certificates(str(folder / "cert.pem"), str(folder / "key.pem"), str(folder / "ca.pem") if mutual else None)


@pytest.fixture
def secured(authorizer: Authorizer, folder: Path) -> Iterator[Served]:
    with serving(authorizer, TLS, certificates=certificates(folder)) as served:
        yield served


def status(served: Served, question: CheckRequest, address: str, *credentials: bytes | None) -> int:
    """Return the verdict's code; an RPC error is raised."""
    channel = served.connect(address, grpc.ssl_channel_credentials(*credentials))
    try:
        return served.check(question, channel).status.code
    finally:
        served.run(channel.close())


def presented(served: Served) -> str:
    """Return the certificate that a new client is shown, in PEM."""
    host, _, port = served.addresses[0].removeprefix("tls:").rpartition(":")

    def shake_hands() -> str:
        return ssl.get_server_certificate((host, int(port)), timeout=120)

    return served.run(asyncio.to_thread(shake_hands))


def pem(certificate: Certificate) -> str:
    return certificate.chain.decode()


def test_plaintext_tls_and_a_socket_serve_together(
    authorizer: Authorizer, question: CheckRequest, folder: Path, authority: Authority
) -> None:
    listen = (LOOPBACK, TLS, f"unix:{folder}/a.sock")
    with serving(authorizer, *listen, certificates=certificates(folder)) as served:
        plain, tls, unix = served.addresses
        over_socket = served.connect(unix)
        codes = [
            served.check(question).status.code,
            status(served, question, tls, authority.root),
            served.check(question, over_socket).status.code,
        ]
        served.run(over_socket.close())

    assert codes == [0, 0, 0]
    assert tls.startswith("tls:127.0.0.1:")
    assert tls.rpartition(":")[2] not in {"0", plain.rpartition(":")[2]}


def test_tls_address_serves_no_plaintext(secured: Served, question: CheckRequest) -> None:
    channel = secured.connect(secured.addresses[0].removeprefix("tls:"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        secured.check(question, channel)
    secured.run(channel.close())

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_mutual_tls_serves_clients_of_the_authority_only(
    authorizer: Authorizer, question: CheckRequest, folder: Path, authority: Authority
) -> None:
    client, stranger = authority.issue(), Authority().issue()
    with serving(authorizer, TLS, certificates=certificates(folder, mutual=True)) as served:
        [address] = served.addresses
        code = status(served, question, address, authority.root, client.key, client.chain)
        refusals = []
        for credentials in ((), (stranger.key, stranger.chain)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                status(served, question, address, authority.root, *credentials)
            refusals.append(caught.value.code())

    assert code == 0
    assert refusals == [grpc.StatusCode.UNAVAILABLE] * 2


def test_new_certificate_is_shown_without_a_restart(secured: Served, folder: Path, authority: Authority) -> None:
    first = presented(secured)
    renewed = write(folder, authority.issue_for_loopback())

    assert presented(secured) == pem(renewed) != first
    assert presented(secured) == pem(renewed)


def test_certificate_behind_a_link_is_renewed_by_another_link(
    authorizer: Authorizer, tmp_path: Path, authority: Authority
) -> None:
    """As Kubernetes changes a mounted secret: ``..data`` points to another folder."""
    issued = []
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        issued.append(write(tmp_path / name, authority.issue_for_loopback()))
    (tmp_path / "..data").symlink_to("old")
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    with serving(authorizer, TLS, certificates=certificates(tmp_path)) as served:
        shown = [presented(served)]
        (tmp_path / "..data.new").symlink_to("new")
        (tmp_path / "..data.new").replace(tmp_path / "..data")
        shown.append(presented(served))

    assert shown == [pem(certificate) for certificate in issued]


def test_every_tls_address_shows_the_new_certificate(
    authorizer: Authorizer, folder: Path, authority: Authority
) -> None:
    with serving(authorizer, TLS, "tls:127.0.0.2:0", certificates=certificates(folder)) as served:
        first, second = served.addresses
        renewed = write(folder, authority.issue_for_loopback())
        shown = [presented(served)]
        served.addresses = (second, first)
        shown.append(presented(served))

    assert shown == [pem(renewed)] * 2


BROKEN: dict[str, Callable[[Path], object]] = {
    "another-key": lambda folder: (folder / "key.pem").write_bytes(Authority().issue().key),
    "no-key": lambda folder: (folder / "key.pem").unlink(),
    "half-a-certificate": lambda folder: (folder / "cert.pem").write_bytes((folder / "cert.pem").read_bytes()[:100]),
}


@pytest.mark.parametrize("breakage", BROKEN.values(), ids=BROKEN)
def test_last_good_certificate_stays_and_one_warning_tells_of_it(
    secured: Served,
    folder: Path,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
    breakage: Callable[[Path], object],
) -> None:
    first = presented(secured)
    breakage(folder)
    kept = [presented(secured) for _ in range(3)]
    renewed = write(folder, authority.issue_for_loopback())

    assert kept == [first] * 3
    assert [record.event for record in caplog.records if record.event.startswith("tls")] == ["tls_certificate_refused"]
    assert presented(secured) == pem(renewed)


def encrypt(folder: Path) -> None:
    key = load_pem_private_key((folder / "key.pem").read_bytes(), None)
    protection = BestAvailableEncryption(b"secret")
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (BROKEN["no-key"], "tls_key_file: '.*/key.pem' cannot be read"),
        (BROKEN["another-key"], "tls_key_file: '.*/key.pem' is not the key of the certificate in tls_cert_file"),
        (BROKEN["half-a-certificate"], "tls_cert_file: '.*/cert.pem' holds no certificate in PEM"),
        (encrypt, "tls_key_file: '.*/key.pem' is encrypted; decrypt it"),
        (lambda folder: (folder / "key.pem").write_text("no key"), "tls_key_file: '.*' holds no private key in PEM"),
        (lambda folder: (folder / "ca.pem").write_text(""), "tls_client_ca_file: '.*' holds no certificate in PEM"),
        (lambda folder: (folder / "ca.pem").unlink(), "tls_client_ca_file: '.*' cannot be read"),
    ],
)
def test_certificate_that_cannot_be_used_is_a_wrong_setting(
    folder: Path, breakage: Callable[[Path], object], message: str
) -> None:
    breakage(folder)
    with pytest.raises(ConfigError, match=rf"^{message}$"):
        certificates(folder, mutual=True)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("cert.pem", None, None), "tls_key_file: missing"),
        ((None, "key.pem", None), "tls_cert_file: missing"),
        ((None, None, "ca.pem"), "tls_cert_file: missing"),
    ],
)
def test_half_of_what_tls_needs_is_a_wrong_setting(files: tuple[str | None, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{message}; TLS needs tls_cert_file and tls_key_file$"):
        Certificates.configured(*files)


def test_no_tls_is_no_wrong_setting() -> None:
    assert Certificates.configured(None, None, None) is None


def test_tls_address_and_certificate_need_each_other(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^tls_cert_file: missing; 'tls:127.0.0.1:0' needs tls_cert_file and"):
        server.checked_addresses([LOOPBACK, TLS])
    with pytest.raises(ConfigError, match=r"^tls_cert_file: no address uses it; listen on tls:HOST:PORT$"):
        server.checked_addresses([LOOPBACK], certificates=certificates(folder))


def test_native_engine_refuses_tls(authorizer: Authorizer, folder: Path) -> None:
    for listen, options in (((TLS,), {}), ((LOOPBACK,), {"certificates": certificates(folder)})):
        with (
            pytest.raises(ConfigError, match=r"^(listen|tls_cert_file): the native engine has no TLS"),
            serving(authorizer, *listen, engine="native", **options),
        ):
            pass


def test_only_plaintext_that_others_can_reach_is_warned_about(
    authorizer: Authorizer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listen = (LOOPBACK, "tls:0.0.0.0:0", f"unix:{folder}/a.sock", "0.0.0.0:0")
    with serving(authorizer, *listen, certificates=certificates(folder)):
        pass

    warned = [record.fields["address"] for record in caplog.records if record.event == "listening_without_tls"]
    assert warned == ["0.0.0.0:0"]


# ---- Unix sockets ----


def mode_of(path: Path) -> int:
    return path.lstat().st_mode & 0o777


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_socket_has_the_permissions_that_were_asked_for(
    authorizer: Authorizer, question: CheckRequest, tmp_path: Path, engine: EngineName, mode: int
) -> None:
    path = tmp_path / "a.sock"
    with serving(authorizer, f"unix:{path}", engine=engine, permissions=Permissions(mode=mode)) as served:
        found, code = mode_of(path), served.check(question).status.code

    assert (found, code) == (mode, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_socket_is_never_open_wider_than_it_should_be(tmp_path: Path, umask: int) -> None:
    seen = []

    def bind(path: str) -> None:
        listening.bind(path)
        seen.append((mode_of(Path(path)), (tmp_path / "a.sock").exists()))

    before = os.umask(umask)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            bind_socket(str(tmp_path / "a.sock"), Permissions(mode=0o640), bind)
        after = os.umask(umask)
    finally:
        os.umask(before)

    assert seen == [(0o600, False)]
    assert mode_of(tmp_path / "a.sock") == 0o640
    assert after == umask


def test_successor_keeps_the_socket_that_it_took_over(
    authorizer: Authorizer, question: CheckRequest, tmp_path: Path, engine: EngineName
) -> None:
    path = str(tmp_path / "a.sock")

    def listen(temporary: str) -> None:
        successor.bind(temporary)
        successor.listen()

    with (
        socket.socket(socket.AF_UNIX) as successor,
        socket.socket(socket.AF_UNIX) as client,
        serving(authorizer, f"unix:{path}", engine=engine) as predecessor,
    ):
        predecessor.check(question)
        bind_socket(path, Permissions(), listen)
        # Whoever is connected stays with the predecessor.
        code = predecessor.check(question).status.code
        predecessor.stop()
        client.connect(path)
        accepted, _ = successor.accept()
        accepted.close()

    assert code == 0


def test_somebody_who_answers_is_found_out(authorizer: Authorizer, tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    unix_sockets.check_not_in_use([path])
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(path)
    unix_sockets.check_not_in_use([path])
    with (
        serving(authorizer, f"unix:{path}"),
        pytest.raises(ConfigError, match=rf"^listen: 'unix:{path}' cannot be bound: another server listens there"),
    ):
        unix_sockets.check_not_in_use([path])


def test_path_of_107_bytes_is_served_and_one_more_refused(
    authorizer: Authorizer, question: CheckRequest, tmp_path: Path, engine: EngineName
) -> None:
    longest = tmp_path / ("s" * (106 - len(str(tmp_path))))
    with serving(authorizer, f"unix:{longest}", engine=engine) as served:
        code = served.check(question).status.code
    with (
        pytest.raises(ConfigError, match=r"^listen: .* cannot be bound: the path is longer than 107 bytes"),
        serving(authorizer, f"unix:{longest}s", engine=engine),
    ):
        pass

    assert (len(str(longest)), code) == (107, 0)


@pytest.mark.parametrize(
    ("mode", "owner", "message"),
    [
        ("0999", None, "socket_mode: '0999' is not octal permissions such as 0660"),
        ("rw", None, "socket_mode: 'rw' is not"),
        ("1777", None, "socket_mode: '1777' is not"),
        ("", None, "socket_mode: '' is not"),
        (None, "nobody-of-that-name", "socket_owner: there is no user 'nobody-of-that-name' on this machine"),
        (None, ":nobody-of-that-name", "socket_owner: there is no group 'nobody-of-that-name' on this machine"),
        (None, ":", "socket_owner: give user, user:group or :group"),
    ],
)
def test_permissions_that_cannot_be_are_a_wrong_setting(mode: str | None, owner: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{message}"):
        Permissions.parse(mode, owner)


ME, US = pwd.getpwuid(0), grp.getgrgid(0)


@pytest.mark.parametrize(
    ("mode", "owner", "expected"),
    [
        (None, None, {"mode": 0o600}),
        ("0640", None, {"mode": 0o640}),
        ("666", None, {"mode": 0o666}),
        (None, ME.pw_name, {"mode": 0o600, "uid": ME.pw_uid}),
        (None, f":{US.gr_name}", {"mode": 0o660, "gid": US.gr_gid}),
        ("0600", f"{ME.pw_name}:{US.gr_name}", {"mode": 0o600, "uid": ME.pw_uid, "gid": US.gr_gid}),
        (None, "101:102", {"mode": 0o660, "uid": 101, "gid": 102}),
    ],
)
def test_permissions_are_read(mode: str | None, owner: str | None, expected: dict[str, Any]) -> None:
    assert Permissions.parse(mode, owner) == Permissions(**expected)


def test_socket_goes_to_its_owner(authorizer: Authorizer, tmp_path: Path, engine: EngineName) -> None:
    path = tmp_path / "a.sock"
    permissions = Permissions.parse(None, f"{os.getuid()}:{os.getgid()}")
    with serving(authorizer, f"unix:{path}", engine=engine, permissions=permissions):
        found = path.lstat()

    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (os.getuid(), os.getgid(), 0o660)
