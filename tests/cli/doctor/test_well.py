"""A set-up in which all is well, how it is told, and that nothing is changed by looking."""

import ipaddress
import json
import os
import select
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography import x509

from authz import cli
from authz.demo.issuer.directory import DEFAULT_API_KEY
from authz.demo.issuer.program import IssuerServer
from authz.demo.issuer.signing import SigningKey
from tests import programs
from tests.certificates import Authority
from tests.cli.doctor.conftest import Diagnose
from tests.cli.doctor.web_issuer import METADATA, context_of, web_issuer
from tests.doubles import AUDIENCE
from tests.loopback import Connection
from tests.programs import Program
from tests.store.engines import Engine, free_port

pytestmark = pytest.mark.process

ACME = "org_01JYACME000000000000000001"
LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


@pytest.fixture
def policy(tmp_path: Path) -> str:
    file = tmp_path / "policy.json"
    rules = [{"name": "acme", "source": {"organizations": [ACME]}}]
    file.write_text(json.dumps({"name": "ledger", "allow_rules": rules}))
    return str(file)


@pytest.fixture
def by_tls(settings: dict[str, str], free_address: str, policy: str, tmp_path: Path) -> dict[str, str]:
    """Return the variables of a server with TLS and a policy."""
    context_of(Authority().issue(LOOPBACK, days=(-1, 90)), tmp_path)
    return {
        **settings,
        "AUTHZ_POLICY": policy,
        "AUTHZ_LISTEN": f"tls:{free_address}",
        "AUTHZ_TLS_CERT_FILE": str(tmp_path / "server.pem"),
        "AUTHZ_TLS_KEY_FILE": str(tmp_path / "server.key"),
    }


@pytest.fixture
def asked(settings: dict[str, str], credentials: dict[str, str], introspection: dict[str, str]) -> dict[str, str]:
    return {**settings, **credentials, **introspection, "AUTHZ_INTROSPECT_MAX_AGE": "10"}


def test_all_is_well_where_everything_is_configured_and_nothing_is_changed(
    diagnose: Diagnose,
    asked: dict[str, str],
    by_tls: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    envoy, listen = tmp_path / "envoy.yaml", by_tls["AUTHZ_LISTEN"]
    assert cli.run(("envoy-config", "--upstream", "127.0.0.1:50051", "--authz", listen)) == 0
    envoy.write_text(capsys.readouterr().out)
    before, threads = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}, set(threading.enumerate())
    with Engine("valkey", "--appendonly", "yes", "--maxmemory-policy", "noeviction") as engine:
        more = {"AUTHZ_STORE": engine.url, "AUTHZ_HTTP_LISTEN": "127.0.0.1:0", "AUTHZ_WORKOS_EVENTS": "true"}
        more |= {"AUTHZ_WORKOS_API_KEY": DEFAULT_API_KEY, "AUTHZ_WORKOS_BASE_URL": asked["AUTHZ_ISSUER"]}
        found = diagnose("--envoy-config", str(envoy), **{**asked, **by_tls, **more})
        with engine.client() as client:
            keys = client.dbsize()
    host, _, port = listen.removeprefix("tls:").rpartition(":")
    with socket.create_server((host, int(port))):
        after, more_threads = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}, threading.enumerate()

    assert (found.status, found.faults(), keys) == (0, {}, 0)
    assert {each["check"] for each in found.findings if each["level"] != "ok"} == {"server"}
    assert after == before
    assert set(more_threads) <= threads


def test_a_server_that_runs_is_no_other_program_and_says_how_it_is(
    diagnose: Diagnose, settings: dict[str, str], free_address: str, policy: str, tmp_path: Path
) -> None:
    serve = ("serve", "--listen", free_address, "--policy", policy, "--log-format", "json")
    with Program(*serve, folder=tmp_path, **settings) as server:
        server.await_event("health", status="SERVING")
        found = diagnose("--policy", policy, "--listen", free_address, **settings)

    assert (found.status, found.faults()) == (0, {})
    assert found.of("listen")["found"] == f"{free_address} is in use by a server of ours (listen)"
    assert found.of("server")["found"] == f"a server at {free_address} is SERVING"


def test_a_server_that_cannot_decide_says_why(
    diagnose: Diagnose, free_address: str, policy: str, tmp_path: Path
) -> None:
    probes = f"127.0.0.1:{free_port()}"
    # Port 9 (discard) has no HTTP server.
    settings = {"AUTHZ_ISSUER": "http://127.0.0.1:9", "AUTHZ_AUDIENCE": AUDIENCE, "AUTHZ_HTTP_LISTEN": probes}
    with Program("serve", "--listen", free_address, "--policy", policy, folder=tmp_path, **settings) as server:
        server.await_line(lambda line: '"health"' in line and "key_set_unavailable" in line)
        found = diagnose("--policy", policy, "--listen", free_address, **settings)

    fault = found.with_code("server-not-serving")
    assert (found.status, fault["check"]) == (1, "server")
    assert "NOT_SERVING" in fault["found"]
    assert "key_set_unavailable" in fault["found"]


def test_a_server_with_our_certificate_is_ours(diagnose: Diagnose, by_tls: dict[str, str], tmp_path: Path) -> None:
    with Program("serve", folder=tmp_path, **by_tls) as server:
        server.await_event("listening")
        found = diagnose(**by_tls)

    assert (found.status, found.faults()) == (0, {})
    assert found.of("server")["found"].startswith("a server with our certificate listens at tls:")


# ---- How it is told ----


def test_people_get_a_line_for_each_check_and_the_remedy(
    settings: dict[str, str], free_address: str, tmp_path: Path
) -> None:
    variables = {**settings, "AUTHZ_AUDIENCE": "", "AUTHZ_LISTEN": free_address}
    wrong = programs.run("doctor", folder=tmp_path, **variables)
    done = programs.run("doctor", folder=tmp_path, **{**variables, "AUTHZ_AUDIENCE": AUDIENCE})

    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("authz: audience: must not be empty")
    assert (done.returncode, done.stderr) == (0, "")
    assert "ok        keys: 1 for RS256\n" in done.stdout
    assert "warning   policy: policy-none\n" in done.stdout
    assert "            remedy    Say who may call what in a file" in done.stdout
    assert "skipped   store: because no store is set\n" in done.stdout
    assert done.stdout.endswith("\n0 errors, 1 warning\n")
    assert "\x1b" not in done.stdout


def test_what_an_issuer_writes_cannot_move_the_cursor_or_fill_the_screen(
    rsa_key: SigningKey, free_address: str, tmp_path: Path
) -> None:
    with web_issuer(rsa_key, names="\x1b[2J\u202e" + "x" * 5000) as url:
        variables = {"AUTHZ_ISSUER": url, "AUTHZ_AUDIENCE": AUDIENCE, "AUTHZ_LISTEN": free_address}
        done = programs.run("doctor", folder=tmp_path, **variables)

    assert "error     metadata: issuer-mismatch\n" in done.stdout
    assert "\\u001b[2J\\u202e" in done.stdout
    assert {"\x1b", "\u202e"}.isdisjoint(done.stdout)
    assert max(map(len, done.stdout.splitlines())) < 500


def test_wrong_usage_is_told_apart_from_a_wrong_setup(tmp_path: Path) -> None:
    assert programs.run("doctor", "--tiemout", "1", folder=tmp_path).returncode == 2
    assert programs.run("doctor", "--timeout", "0", folder=tmp_path).returncode == 2
    assert programs.run("doctor", "extra", folder=tmp_path).returncode == 2


def test_check_that_fails_itself_ends_no_other(
    diagnose: Diagnose, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("a-secret")

    monkeypatch.setattr("authz.cli.doctor.policy.policy_of", refuse)
    found = diagnose(**settings)

    assert (found.status, found.with_code("unforeseen")["check"]) == (3, "policy")
    assert "RuntimeError at " in found.with_code("unforeseen")["found"]
    assert "a-secret" not in found.text
    assert found.of("listen")["level"] == "ok"


def test_no_secret_and_no_token_is_shown(
    diagnose: Diagnose, asked: dict[str, str], live_issuer: IssuerServer, tmp_path: Path
) -> None:
    client_id = asked["AUTHZ_CLIENT_ID"]
    token, file = live_issuer.issuer.mint(client_id=client_id, claims={}, header={}, expires_in=300), tmp_path / "token"
    file.write_text(token)
    found = diagnose("--token-file", str(file), **asked)

    assert (found.of("token")["level"], found.of("introspection")["level"]) == ("ok", "ok")
    assert all(secret not in found.text for secret in (token, asked["AUTHZ_CLIENT_SECRET"]))


def test_an_issuer_that_knows_nothing_of_its_token_is_named(
    diagnose: Diagnose, asked: dict[str, str], live_issuer: IssuerServer, tmp_path: Path
) -> None:
    client_id = asked["AUTHZ_CLIENT_ID"]
    token, file = live_issuer.issuer.mint(client_id=client_id, claims={}, header={}, expires_in=300), tmp_path / "token"
    live_issuer.issuer.revoke(token=token)
    file.write_text(token)
    found = diagnose("--token-file", str(file), **asked)

    assert (found.status, found.with_code("introspection-inactive")["check"]) == (1, "introspection")


def test_time_is_bounded_however_slow_an_issuer_is(rsa_key: SigningKey, tmp_path: Path, free_address: str) -> None:
    answers = dict.fromkeys(
        (METADATA, "/oauth2/jwks", "/oauth2/token", "/oauth2/introspection"), Connection.say_nothing
    )
    with web_issuer(rsa_key, answers=answers) as url:
        done = programs.run(
            *("doctor", "--json", "--timeout", "0.2", "--client-id", "a", "--introspection-client-id", "a"),
            folder=tmp_path,
            AUTHZ_ISSUER=url,
            AUTHZ_AUDIENCE=AUDIENCE,
            AUTHZ_LISTEN=free_address,
            AUTHZ_CLIENT_SECRET="secret",
            AUTHZ_INTROSPECTION_CLIENT_SECRET="secret",
        )
    report = json.loads(done.stdout)

    assert done.returncode == 1
    assert {each["code"] for each in report["findings"]} >= {"issuer-slow", "token-unavailable"}
    # Three questions, and as much again for a busy machine; without a bound they would last for ever.
    assert report["seconds"] < 60


def test_colours_are_for_terminals_that_want_them(settings: dict[str, str], free_address: str, tmp_path: Path) -> None:
    variables = {**settings, "AUTHZ_LISTEN": free_address, "TERM": "xterm"}
    told = [_on_a_terminal(tmp_path, {**variables, **more}) for more in ({}, {"NO_COLOR": "1"})]

    assert "\x1b[32mok\x1b[0m        keys: 1 for RS256" in told[0]
    assert "\x1b" not in told[1]
    assert "ok        keys: 1 for RS256" in told[1]


def _on_a_terminal(folder: Path, variables: dict[str, str]) -> str:
    """Return what a terminal of 100 columns shows."""
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    inherited = {name: value for name, value in programs.environment(variables).items() if name != "NO_COLOR"}
    environment = {**inherited, **variables, "COLUMNS": "100"}
    with subprocess.Popen([*programs.AUTHZ, "doctor"], stdout=theirs, cwd=folder, env=environment) as process:
        os.close(theirs)
        shown = b""
        while process.poll() is None or select.select([ours], [], [], 0)[0]:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    shown += os.read(ours, 65536)
                except OSError:
                    break
        process.wait(programs.PATIENCE)
    os.close(ours)
    return shown.decode()
