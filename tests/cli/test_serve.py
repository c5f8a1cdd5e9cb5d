"""What ``authz serve`` says before it serves: that the configuration is good, and what is in force, without secrets."""

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from authz import cli
from authz.demo.issuer.signing import SigningKey
from authz.envoy.v3.external_auth_pb2 import CheckRequest, CheckResponse
from authz.server.operations import banner
from authz.settings.groups import GROUPS
from authz.settings.settings import Settings
from tests import programs
from tests.certificates import Authority
from tests.doubles import AUDIENCE, ISSUER, jwks
from tests.envoy.check.messages import GRPC, in_headers
from tests.programs import AUTHZ, Program
from tests.server.serving.serving import CHECK

SECRET = "a-secret-for-introspection"
LOOPBACK = "127.0.0.1:0"
SERVE = ("serve", "--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256")
INTROSPECTION = ("--introspect-max-age", "5", "--introspection-client-id", "client_api")
# SIGHUP, which the end of a terminal brings, ends no server; so it is told to end.
TERMINAL = """
import contextlib, os, pty, signal, sys
pid, terminal = pty.fork()
if not pid:
    os.execv(sys.argv[1], sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
with contextlib.suppress(OSError):
    while shown := os.read(terminal, 4096):
        os.write(1, shown)
os.waitpid(pid, 0)
"""
ON_A_TERMINAL = (sys.executable, "-c", TERMINAL, *AUTHZ)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, ec_key: SigningKey) -> Path:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    return tmp_path


@pytest.fixture
def run(
    no_settings: None,  # noqa: ARG001 - works in the folder
    capsys: pytest.CaptureFixture[str],
) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        return cli.run([*SERVE, *arguments]), *capsys.readouterr()

    return run


# ---- The beginning ----


def test_log_says_which_settings_are_in_force_and_no_secret(folder: Path) -> None:
    url = "https://acme.example/introspection?key=" + SECRET
    flags = ("--jwks", "jwks.json", "--listen", LOOPBACK, *INTROSPECTION, "--introspection-url", url)
    with Program(*SERVE, *flags, folder=folder, AUTHZ_INTROSPECTION_CLIENT_SECRET=SECRET) as program:
        event = program.await_event("listening")
        settings = event["settings"]

    assert event["addresses"][0].startswith("127.0.0.1:")
    assert (event["engine"], event["keys"]) == ("grpcio", {ISSUER: {"keys": 1, "age": None, "is_ready": True}})
    assert (settings["listen"], settings["jwks"], settings["leeway"]) == ([LOOPBACK], "jwks.json", 10)
    assert settings["introspection_client_secret"] == "**********"
    assert SECRET not in program.text


def test_secret_in_a_file_shows_as_its_path(folder: Path) -> None:
    flags = ("--jwks", "jwks.json", "--listen", LOOPBACK, *INTROSPECTION)
    with Program(*SERVE, *flags, "--introspection-client-secret-file", "secret", folder=folder) as program:
        settings = program.await_event("listening")["settings"]

    assert settings["introspection_client_secret_file"] == "secret"
    assert settings["introspection_client_secret"] is None
    assert SECRET not in program.text


def test_terminal_gets_a_text_for_people(folder: Path) -> None:
    flags = ("--jwks", "jwks.json", "--listen", LOOPBACK, "--realm", "[bold]ledger", *INTROSPECTION)
    variables = {"AUTHZ_INTROSPECTION_CLIENT_SECRET": SECRET, "TERM": "dumb", "COLUMNS": "200"}
    with Program(*SERVE, *flags, folder=folder, command=ON_A_TERMINAL, **variables) as program:
        program.await_line(lambda line: "listening" in line and "addresses" in line)
        text = {line.split("  ", 1)[0].strip(): line.split("  ", 1)[1].strip() for line in program.log if "  " in line}
        program.send(signal.SIGTERM)
        assert program.wait() == 0

    assert text["listening on"].startswith("127.0.0.1:")
    assert (text["engine"], text["keys"], text["realm"]) == ("grpcio", "1 key", "[bold]ledger")
    assert text["policy"] == "none: every good token may call everything"
    assert text["introspection_client_secret"] == "**********"
    assert "leeway" not in text
    assert SECRET not in program.text


@pytest.mark.parametrize("workers", ["1", "2"])
def test_log_says_which_policy_is_in_force_and_warns_of_none(folder: Path, workers: str) -> None:
    (folder / "policy.json").write_text('{"name": "p", "allow_rules": [{"name": "r"}]}')
    flags = (*SERVE, "--jwks", "jwks.json", "--listen", LOOPBACK, "--workers", workers)
    said = []
    for more in ((), ("--policy", "policy.json")):
        with Program(*flags, *more, folder=folder) as program:
            event = program.await_event("listening")
            said.append((event["level"], event["policy"]))
            program.end()

    assert said == [("warning", "none: every good token may call everything"), ("info", "policy.json")]


@pytest.mark.parametrize(("policy", "level"), [("", "WARNING"), ("policy.json", "INFO")])
@pytest.mark.usefixtures("no_settings")
def test_lack_of_a_policy_is_a_warning(caplog: pytest.LogCaptureFixture, policy: str, level: str) -> None:
    caplog.set_level("INFO")
    banner.announce(Settings.load(), policy, [LOOPBACK], {})

    assert [record.levelname for record in caplog.records] == [level]


def test_settings_file_that_is_read_is_said(folder: Path) -> None:
    (folder / ".env").write_text("AUTHZ_REALM=ledger\n")
    flags = ("--jwks", "jwks.json", "--listen", LOOPBACK, "--env-file", ".env")
    with Program(*SERVE, *flags, folder=folder) as program:
        settings = program.await_event("listening")["settings"]

    assert (settings["env_file"], settings["realm"]) == (".env", "ledger")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_process_serves_with_the_file_of_settings(folder: Path, workers: int) -> None:
    lines = [f"issuer: {ISSUER}", f"audience: {AUDIENCE}", "algorithms: ES256", "jwks: jwks.json", "realm: ledger"]
    lines += [f'listen: ["{LOOPBACK}"]', f"workers: {workers}", "log_format: json"]
    (folder / "authz.yaml").write_text("\n".join(lines))
    with Program("serve", "--config", "authz.yaml", folder=folder) as program:
        event = program.await_event("listening")
        realm = refusal_of(event["addresses"][0])
        program.end()

    assert (event["workers"], event["settings"]["config"]) == (workers, "authz.yaml")
    assert 'realm="ledger"' in realm


def test_a_wrong_file_of_settings_ends_every_process_with_one_line(folder: Path) -> None:
    (folder / "authz.yaml").write_text(f"issuer: {ISSUER}\naudience: a\nworkers: 2\nleeway: 4000\n")
    done = programs.run("serve", "--config", "authz.yaml", folder=folder)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == (
        "authz: authz.yaml:4: leeway: 4000.0 is not a number of seconds from 0 up to 300"
    )


def refusal_of(address: str) -> str:
    """Return www-authenticate of the answer to a call without a token."""
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(CHECK, CheckRequest.SerializeToString, CheckResponse.FromString)
        headers = check(in_headers(GRPC), timeout=programs.PATIENCE).denied_response.headers
    return next(each.header.value for each in headers if each.header.key == "www-authenticate")


def test_socket_of_a_server_that_serves_is_left_to_it(folder: Path) -> None:
    flags = (*SERVE, "--jwks", "jwks.json", "--listen", "unix:a.sock")
    with Program(*flags, folder=folder) as program:
        program.await_event("listening")
        second = programs.run(*flags, folder=folder)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(folder / "a.sock"))

    assert second.returncode == 2
    assert second.stderr.startswith("authz: listen: 'unix:a.sock' cannot be bound: another server listens there")


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_socket_for_watchers_has_the_permissions_of_the_others(folder: Path, umask: int) -> None:
    flags = (*SERVE, "--jwks", "jwks.json", "--listen", "unix:a.sock", "--audit-listen", "unix:w.sock")
    before = os.umask(umask)
    try:
        with Program(*flags, "--socket-mode", "0660", folder=folder) as program:
            program.await_event("listening")
            modes = [(folder / name).lstat().st_mode & 0o777 for name in ("a.sock", "w.sock")]
            program.send(signal.SIGTERM)
            assert program.wait() == 0
    finally:
        os.umask(before)

    assert modes == [0o660, 0o660]
    assert not list(folder.glob("*.sock"))


@pytest.mark.parametrize("workers", [(), ("--workers", "1"), ("--workers", "2")], ids=["one", "named", "two"])
def test_socket_for_watchers_of_a_server_that_serves_is_left_to_it(folder: Path, workers: tuple[str, ...]) -> None:
    first = (*SERVE, "--jwks", "jwks.json", *workers, "--audit-listen", "unix:w.sock")
    with Program(*first, "--listen", "unix:a.sock", folder=folder) as program:
        program.await_event("listening")
        before = {path.name: path.lstat().st_ino for path in folder.glob("w.sock*")}
        second = programs.run(*first, "--listen", "unix:b.sock", folder=folder)
        after = {path.name: path.lstat().st_ino for path in folder.glob("w.sock*")}

    assert second.returncode == 2
    assert re.match(r"authz: audit_listen: 'unix:w\.sock.*' cannot be bound: another server listens", second.stderr)
    assert before == after != {}


# ---- --check-config ----


def test_checked_configuration_says_where_each_value_is_from(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "authz.yaml").write_text("realm: file\ngrace: 1\ndrain: 2\n\nmax_pending: 7\n")
    (folder / ".env").write_text("AUTHZ_CONFIG=authz.yaml\nAUTHZ_GRACE=3\n")
    monkeypatch.setenv("AUTHZ_DRAIN", "4")
    monkeypatch.setenv("AUTHZ_ENV_FILE", ".env")
    status, out, err = run("--check-config", "--realm", "flag")

    assert (status, err) == (0, "")
    assert {
        "  realm: flag (--realm)",
        "  drain: 4.0 (AUTHZ_DRAIN)",
        "  grace: 3.0 (AUTHZ_GRACE in .env)",
        "  max_pending: 7 (authz.yaml:5)",
        "  config: authz.yaml (AUTHZ_CONFIG in .env)",
        "  log_level: info",
    } <= set(out.splitlines())


def test_checked_configuration_has_every_setting_in_the_order_of_the_help(run: Run) -> None:
    _, out, _ = run("--check-config")

    listed = [line.split(":")[0].strip() for line in out.splitlines() if line.startswith("  ")]
    assert listed == [name for names in GROUPS.values() for name in names]
    assert set(listed) == set(Settings.model_fields)


def test_good_configuration_is_said_to_be_good_and_nothing_is_bound_or_fetched(run: Run, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        sockets = ("--listen", listen, "--listen", "unix:a.sock", "--socket-mode", "0660")
        status, out, err = run("--check-config", *sockets, "--jwks-url", f"http://{listen}/jwks")
        lines = out.splitlines()
        taken.settimeout(0)
        with pytest.raises(BlockingIOError):
            taken.accept()

    assert (status, err, lines[0]) == (0, "", "configuration is good")
    assert {f"  listen: {listen}, unix:a.sock (--listen)", "  socket_mode: 0660 (--socket-mode)"} <= set(lines)
    assert not (folder / "a.sock").exists()


def test_checked_configuration_shows_no_secret(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_INTROSPECTION_CLIENT_SECRET", SECRET)
    monkeypatch.setenv("AUTHZ_JWKS", json.dumps(jwks(SigningKey.generate("own", "ES256"))))
    status, out, err = run("--check-config", *INTROSPECTION)

    assert (status, err) == (0, "")
    assert SECRET not in out
    secret, keys = "  introspection_client_secret: **********", "  jwks: {…}"
    assert {f"{secret} (AUTHZ_INTROSPECTION_CLIENT_SECRET)", f"{keys} (AUTHZ_JWKS)"} <= set(out.splitlines())


def test_checked_configuration_says_which_policy_is_in_force(run: Run, folder: Path) -> None:
    (folder / "policy.json").write_text('{"name": "p", "allow_rules": [{"name": "r"}]}')
    none, some = (run("--check-config", *more)[1].splitlines()[1] for more in ((), ("--policy", "policy.json")))

    assert none == "warning: policy in force: none: every good token may call everything"
    assert some == "policy in force: policy.json"


def test_password_in_a_url_is_not_shown(run: Run) -> None:
    status, out, err = run("--check-config", "--introspection-url", f"https://user:{SECRET}@acme.example/introspect")

    assert (status, err) == (0, "")
    assert "  introspection_url: https://acme.example/introspect?… (--introspection-url)" in out.splitlines()
    assert SECRET not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--jwks", "nowhere.json"), "jwks: file 'nowhere.json' cannot be read"),
        (("--listen", "9191"), "listen: '9191' is neither"),
        (("--listen", "unix:no/a.sock"), "listen: 'unix:no/a.sock' cannot be bound: there is no such folder"),
        (
            ("--listen", "unix:jwks.json"),
            "listen: 'unix:jwks.json' cannot be bound: there is a file that is not a socket",
        ),
        (("--listen", "tls:127.0.0.1:0"), "tls_cert_file: missing; 'tls:127.0.0.1:0' needs"),
        (("--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem"), "tls_cert_file: no address uses it"),
        (("--tls-cert-file", "no.pem", "--tls-key-file", "key.pem"), "tls_cert_file: 'no.pem' cannot be read"),
        (("--tls-client-ca-file", "ca.pem"), "tls_cert_file: missing"),
        (("--audit-listen", "0.0.0.0:9903"), "audit_listen: '0.0.0.0:9903' is not for this machine only"),
        (("--listen", "unix:a", "--audit-listen", "unix:./a"), "audit_listen: 'unix:./a' stands in listen, too"),
        (("--audit-listen", "unix:no/a.sock"), "audit_listen: 'unix:no/a.sock' cannot be bound: there is no such"),
        (("--socket-mode", "rw"), "socket_mode: 'rw' is not octal"),
        (("--socket-owner", "no-such-user-of-ours"), "socket_owner: there is no user"),
        (("--engine", "native", "--listen", "0.0.0.0:0"), "listen: '0.0.0.0:0' can be reached by other machines"),
        (("--engine", "native", "--listen", "tls:127.0.0.1:0"), "listen: the native engine has no TLS"),
        (("--engine", "native", "--reflection"), "reflection: the native engine has none"),
        ((*INTROSPECTION,), "introspection_client_secret: missing"),
    ],
)
def test_wrong_configuration_is_said_in_one_line(
    run: Run, folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    certificate = Authority().issue_for_loopback()
    (folder / "cert.pem").write_bytes(certificate.chain)
    (folder / "key.pem").write_bytes(certificate.key)
    status, out, err = run("--check-config", *arguments)

    assert (status, out) == (2, "")
    assert err.startswith(f"authz: {message}")
    assert err.count("\n") == 1
