"""The command, as a person or a script uses it: what it prints, where, and with which exit code."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs

import grpc
import httpx2
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from authz import cli
from authz.demo.issuer.directory import DEFAULT_FILE
from authz.demo.issuer.program import Issuer, IssuerServer, SigningKey
from authz.envoy.v3.external_auth_pb2 import CheckRequest, CheckResponse
from authz.v1.audit_pb2 import WatchRequest
from authz.v1.audit_pb2_grpc import AuditStub
from authz.v1.decision_pb2 import Decision
from tests import programs
from tests.certificates import Authority
from tests.doubles import AUDIENCE, ISSUER, PATIENCE, jwks, m2m_claims
from tests.envoy.check.messages import Denial, in_headers
from tests.envoy.config.validation import validate
from tests.loopback import Connection, Loopback
from tests.programs import Program
from tests.server.serving.serving import CHECK

pytestmark = pytest.mark.usefixtures("no_settings", "restored_logging")

CLIENT_ID, SECRET = "client_01JYACME000000000000000002", "acme-development-secret"
ACME = "org_01JYACME000000000000000001"
LOOPBACK = "127.0.0.1:0"
# Port 9 (discard) has no HTTP server.
NOBODY = "http://127.0.0.1:9"


class Done(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command in this process."""

    def run(*arguments: str) -> Done:
        status = cli.run(arguments)
        captured = capsys.readouterr()
        return Done(status, captured.out, captured.err)

    return run


@pytest.fixture(scope="module")
def live_issuer(rsa_key: SigningKey) -> Iterator[IssuerServer]:
    with IssuerServer(Issuer(keys=[rsa_key])) as server:
        yield server


@pytest.fixture(scope="module")
def verify(live_issuer: IssuerServer) -> tuple[str, ...]:
    """Return the arguments that verify a token of the live issuer."""
    audience = live_issuer.issuer.directory.audience
    return ("verify", "--issuer", live_issuer.url, "--audience", audience)


@pytest.fixture
def secret(no_settings: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - which takes it away
    monkeypatch.setenv("AUTHZ_CLIENT_SECRET", SECRET)


# ---- What any command does ----


def test_version_is_that_of_the_distribution(run: Run) -> None:
    assert run("--version") == Done(0, f"{version('grpc-org-authz')}\n", "")


def test_module_is_the_command(tmp_path: Path) -> None:
    assert programs.run("--version", folder=tmp_path).stdout == f"{version('grpc-org-authz')}\n"


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_names_every_command(run: Run, arguments: Sequence[str]) -> None:
    done = run(*arguments)

    assert done.status == 0
    assert all(
        name in done.out
        for name in ("serve", "check", "issuer", "demo", "token", "verify", "protos", "envoy-config", "policy")
    )


def test_proto_files_are_where_it_says(run: Run) -> None:
    done = run("protos")

    assert (done.status, done.err) == (0, "")
    assert (Path(done.out.strip()) / "authz/v1/principal.proto").is_file()


SERVE = ("serve", "--issuer", ISSUER, "--audience", AUDIENCE)
VERIFY = ("verify", "--issuer", ISSUER, "--audience", AUDIENCE, "a.b.c")
TOKEN = ("token", "--client-id", CLIENT_ID)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        pytest.param(["serve"], "issuer: missing; set AUTHZ_ISSUER or --issuer", id="no-issuer"),
        pytest.param(["serve", "--issuer", ISSUER], "audience: missing; set AUTHZ_AUDIENCE", id="no-audience"),
        pytest.param([*SERVE, "--issuer", "http://acme.example"], "Parameter --issuer specified multiple", id="twice"),
        pytest.param([*SERVE[:1], *SERVE[3:], "--issuer", "http://acme.example"], "issuer: 'http:", id="http-issuer"),
        pytest.param([*SERVE, "--algorithms", "HS256"], "algorithms: HS256 cannot be used", id="hs256"),
        pytest.param([*SERVE, "--jwks", "nowhere.json"], "jwks: file 'nowhere.json' cannot be read", id="no-jwks"),
        pytest.param([*SERVE, "--jwks", "text.json"], "jwks: file 'text.json' is not JSON", id="no-json"),
        pytest.param([*SERVE, "--jwks", "empty.json"], "jwks: no key of the set can verify", id="empty-set"),
        pytest.param([*SERVE, "--leeway", "soon"], "leeway: ", id="no-number"),
        pytest.param([*SERVE, "--leeway", "-1"], "leeway: -1.0 is not", id="negative-leeway"),
        pytest.param([*SERVE, "--leeway", "301"], "leeway: 301.0 is not", id="leeway-301"),
        pytest.param([*SERVE, "--grace", "-1"], "grace: ", id="negative-grace"),
        pytest.param([*SERVE, "--listen", "9191"], "listen: '9191' is neither HOST:PORT, tls:", id="listen"),
        pytest.param(
            [*SERVE, "--jwks", "keys.json", "--audit-listen", "0.0.0.0:1"], "audit_listen: '0.0.0.0:1' is", id="audit"
        ),
        pytest.param([*SERVE, "--descriptors", "no"], "descriptors: 'no' cannot be read", id="no-descriptors"),
        pytest.param([*SERVE, "--descriptors", "text.json"], "descriptors: 'text.json' is not a", id="descriptors"),
        pytest.param([*SERVE, "--isolation", "enforce"], "isolation: enforce needs AUTHZ_DESCRIPTORS", id="isolation"),
        pytest.param([*SERVE, "--bogus", "1"], "Unknown option: --bogus", id="flag"),
        pytest.param([*SERVE, "--issue", "x"], "Unknown option: --issue. Did you mean --issuer?", id="abbreviation"),
        pytest.param(["srve"], "no such command; there are ", id="command"),
        pytest.param([*VERIFY, "second"], "too many arguments: 2; give one token", id="words"),
        pytest.param([*VERIFY[:-1], "--token=a.b.c"], "Unknown option: --token", id="token-as-flag"),
        pytest.param([*VERIFY[:-1], "--token", "a.b.c"], "Unknown option: --token", id="token-after-flag"),
        pytest.param(["verify", "--issuer"], 'Command "verify" parameter --issuer requires', id="no-value"),
        pytest.param(["issuer", "--config", "text.json"], "text.json:1: not JSON", id="json"),
        pytest.param(["issuer", "--config", "empty.json"], "empty.json:1: unknown key", id="organizations"),
        pytest.param(["issuer", "--listen", "0.0.0.0:0"], "listen: 0.0.0.0 can be reached from other", id="remote"),
        pytest.param(["issuer", "--keys", "text.json"], "text.json: not JSON", id="keys"),
        pytest.param(["token"], "client_id: missing; set AUTHZ_CLIENT_ID or --client-id", id="no-client-id"),
        pytest.param(
            [*TOKEN, "--token-url", NOBODY], "client_secret: missing; set AUTHZ_CLIENT_SECRET or", id="no-secret"
        ),
        pytest.param(
            [*TOKEN, "--token-url", NOBODY, "--client-secret-file", "no"],
            "client_secret_file: 'no' cannot be read",
            id="secret-file",
        ),
        pytest.param(
            [*TOKEN, "--token-url", NOBODY, "--client-secret-file", "bytes"],
            "client_secret_file: 'bytes' cannot be",
            id="secret-bytes",
        ),
        pytest.param(
            [*TOKEN, "--client-secret-file", "text.json"],
            "issuer: missing; set AUTHZ_ISSUER or --issuer",
            id="token-issuer",
        ),
        pytest.param([*TOKEN, "--client-secret", SECRET], "Unknown option: --client-secret.", id="secret-as-flag"),
        pytest.param(["envoy-config"], "upstream: missing; set --upstream, such as", id="no-upstream"),
        pytest.param(["envoy-config", "--format", "kubernetes"], "upstream: missing", id="kubernetes-no-upstream"),
        pytest.param(["envoy-config", "--upstream", "a:1", "--authz", "a:0"], "authz: 'a:0' has no fixed", id="authz"),
        pytest.param(["envoy-config", "--format", "istio", "--json"], "json: only --format bootstrap", id="json"),
        pytest.param(
            ["envoy-config", "--format", "istio", "--authz", "127.0.0.1:1"],
            "authz: '127.0.0.1:1' is not NAME.NAMESPACE.svc",
            id="service",
        ),
        pytest.param(["policy", "check", "empty.json"], "empty.json:1: unknown key 'keys'", id="policy"),
        pytest.param(["policy", "check", "nowhere"], "nowhere: cannot be read", id="no-policy"),
        pytest.param(["policy", "check"], "policy: missing; give a policy file, --descriptors", id="no-policy-file"),
        pytest.param(["policy", "check", "--descriptors", "no"], "descriptors: 'no' cannot be read", id="no-api"),
        pytest.param(["policy", "tset"], "no such command; there are test, explain, diff, check", id="policy-command"),
        pytest.param([*SERVE, "--policy", "empty.json"], "empty.json:1: unknown key 'keys'", id="serve-policy"),
        pytest.param(
            [*SERVE, "--check-config", "--shadow", "empty.json"], "empty.json:1: unknown key 'keys'", id="serve-shadow"
        ),
        pytest.param(["envoy-config", "--upstream", "ledger"], "upstream: 'ledger' is neither", id="upstream"),
        pytest.param(["envoy-config", "--upstream", "a:1", "--admin", "b"], "admin: 'b' is neither", id="admin"),
        pytest.param(
            ["envoy-config", "--upstream", "a:1", "--admin", "b:1"], "admin: 'b:1' is a name", id="named-admin"
        ),
        pytest.param(["envoy-config", "--upstream", "a:1", "--listen", "b:1"], "listen: 'b:1' is a name", id="named"),
        pytest.param(
            ["envoy-config", "--upstream", "a:1", "--http-upstream", ""], "http_upstream: ''", id="http-upstream"
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    run: Run, tmp_path: Path, ec_key: SigningKey, *, arguments: Sequence[str], names: str
) -> None:
    (tmp_path / "text.json").write_text("{ no JSON and: no: YAML")
    (tmp_path / "empty.json").write_text('{"keys": []}')
    (tmp_path / "bytes").write_bytes(b"\xff")
    (tmp_path / "keys.json").write_text(json.dumps(jwks(ec_key)))
    done = run(*arguments)

    assert (done.status, done.out) == (2, "")
    assert re.fullmatch(rf"authz: {re.escape(names)}[^\n]*\n", done.err)
    assert SECRET not in done.err


def test_port_in_use_is_said_in_one_line(run: Run, ec_key: SigningKey, tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run(*SERVE, "--jwks", "jwks.json", "--listen", listen)
        why = (
            "it is in use or not an address of this machine; choose another (`authz doctor` says which program has it)"
        )
        line = f"authz: listen: '{listen}' cannot be bound: {why}\n"

        assert done == Done(2, "", line)
        assert programs.run(*SERVE, "--jwks", "jwks.json", "--listen", listen, folder=tmp_path).stderr == line


READS = [
    pytest.param(["serve", "--check-config"], id="serve"),
    pytest.param(["verify", "a.b.c"], id="verify"),
    pytest.param(["policy", "explain", "policy.json", "--method", "/a.B/C", "--token", "a.b.c"], id="policy"),
    pytest.param(["envoy-config", "--upstream", "127.0.0.1:1"], id="envoy-config"),
    pytest.param(TOKEN, id="token"),
]


@pytest.mark.parametrize("arguments", READS)
def test_unreadable_settings_file_is_said_in_one_line(run: Run, tmp_path: Path, arguments: Sequence[str]) -> None:
    (tmp_path / "policy.json").write_text('{"name": "p", "allow_rules": [{"name": "r"}]}')
    (tmp_path / "a.b.c").write_text("a.b.c")
    (tmp_path / ".env").write_bytes(b"AUTHZ_REALM=caf\xe9\n")
    done = run(*arguments, "--env-file", ".env")

    assert done == Done(2, "", "authz: env_file: '.env' cannot be read as UTF-8 text\n")


@pytest.mark.parametrize("arguments", READS)
def test_a_misspelt_variable_ends_every_command_that_reads_settings(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str]
) -> None:
    (tmp_path / "policy.json").write_text('{"name": "p", "allow_rules": [{"name": "r"}]}')
    (tmp_path / "a.b.c").write_text("a.b.c")
    monkeypatch.setenv("AUTHZ_POLCY", SECRET)

    assert run(*arguments) == Done(2, "", "authz: AUTHZ_POLCY: no such setting; the nearest is AUTHZ_POLICY\n")
    assert run(*SERVE, "--check-config", "--grace", "1").status == 2


@pytest.mark.parametrize("name", ["policy", "descriptors", "audience", "unknown-organizations", "introspect-max-age"])
def test_an_empty_flag_is_an_error(run: Run, name: str) -> None:
    done = run(*SERVE[:1], "--check-config", "--issuer", ISSUER, f"--{name}", "")

    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"authz: {name.replace('-', '_')}: ")


def test_settings_file_that_is_not_named_makes_no_forged_token_good(run: Run, tmp_path: Path) -> None:
    forger = SigningKey.generate("forged")
    (tmp_path / ".env").write_text(f"AUTHZ_JWKS={json.dumps(jwks(forger))}\n")
    token = forger.sign(m2m_claims(time.time()))
    verify = ("verify", "--issuer", ISSUER, "--audience", AUDIENCE)

    assert run(*verify, token, "--env-file", ".env").status == 0
    assert run(*verify, token, "--jwks-url", NOBODY).status == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["header.payload.signature"],
        ["verify", "Bearer", "header.payload.signature"],
        ["verify", "--token=header.payload.signature"],
        ["verify", "--token", "header.payload.signature"],
    ],
)
def test_token_in_a_wrong_place_is_not_repeated(run: Run, arguments: Sequence[str]) -> None:
    done = run(*arguments)

    assert done.status == 2
    assert "payload" not in done.err


def test_interrupt_ends_it_without_a_traceback(tmp_path: Path) -> None:
    command = [*programs.AUTHZ, "verify", "-", "--issuer", ISSUER, "--audience", AUDIENCE]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=tmp_path,
        env=programs.environment({}),
    ) as program:
        assert program.stdin is not None
        # More than a pipe holds: once this is written, the command is reading, and waits for more.
        program.stdin.write(b"a" * 1_000_000)
        program.stdin.flush()
        program.send_signal(signal.SIGINT)
        output, _ = program.communicate(timeout=programs.PATIENCE)

    assert (program.returncode, output) == (130, b"")


@pytest.mark.parametrize(("module", "command"), [("uvicorn", "issuer"), ("grpc_health", "demo")])
def test_missing_extra_is_named(tmp_path: Path, module: str, command: str) -> None:
    script = f"import sys; sys.modules[{module!r}] = None; from authz.cli import main; main()"
    done = programs.run(command, folder=tmp_path, command=(sys.executable, "-c", script))

    assert done.returncode == 2
    assert done.stderr == "authz: this command needs the extra 'demo': pip install 'grpc-org-authz[demo]'\n"


@pytest.mark.parametrize("module", ["cyclopts", "pydantic"])
def test_command_without_its_extra_says_what_to_install(tmp_path: Path, module: str) -> None:
    script = f"import sys; sys.modules[{module!r}] = None; from authz.__main__ import main; main()"
    done = programs.run("verify", folder=tmp_path, command=(sys.executable, "-c", script))

    assert done.returncode == 2
    assert done.stderr == (
        f"authz: verify needs the extra 'server' ({module} is missing): pip install 'grpc-org-authz[server]'\n"
    )


# ---- verify ----


def test_good_token_is_allowed(run: Run, verify: tuple[str, ...], live_issuer: IssuerServer) -> None:
    done = run(*verify, live_issuer.issuer.mint(CLIENT_ID))
    lines = done.out.splitlines()

    assert (done.status, done.err) == (0, "")
    assert lines[:5] == [
        "allowed",
        f"  org_id: {ACME}",
        f"  client_id: {CLIENT_ID}",
        "  scopes: ledger:read ledger:write",
        "claims:",
    ]
    assert f'  "org_id": "{ACME}"' in lines


def test_verdict_can_be_read_by_a_program(run: Run, verify: tuple[str, ...], live_issuer: IssuerServer) -> None:
    done = run(*verify, live_issuer.issuer.mint(CLIENT_ID), "--json")
    report = json.loads(done.out)

    assert report.pop("claims")["org_id"] == ACME
    assert report.pop("header").keys() == {"alg", "kid"}
    assert report == {
        "verdict": "allowed",
        "reason": "",
        "claims_verified": True,
        "org_id": ACME,
        "client_id": CLIENT_ID,
        "scopes": ["ledger:read", "ledger:write"],
    }


def bad_tokens(issuer: Issuer) -> dict[str, str]:
    """Return tokens by the reason for which they are refused."""
    header, payload, signature = issuer.mint(CLIENT_ID).split(".")
    stranger = SigningKey.generate(issuer.keys[0].kid)
    return {
        "token_malformed": "opaque",
        "token_expired": issuer.mint(CLIENT_ID, expires_in=-3600),
        "signature_invalid": f"{header}.{payload}.{signature[:-4]}AAAA",
        "key_not_found": issuer.mint(CLIENT_ID, header={"kid": "unknown"}),
        "claim_invalid": issuer.mint(CLIENT_ID, claims={"aud": "client_01JOTHER"}),
        "claim_missing": issuer.mint(CLIENT_ID, claims={"org_id": None}),
        "algorithm_not_allowed": issuer.mint(CLIENT_ID, header={"alg": "none"}),
        "signature_invalid-stranger": stranger.sign({"iss": issuer.url}),
    }


REASONS = [
    "token_malformed",
    "token_expired",
    "signature_invalid",
    "key_not_found",
    "claim_invalid",
    "claim_missing",
    "algorithm_not_allowed",
    "signature_invalid-stranger",
]


@pytest.fixture(scope="module")
def refused(live_issuer: IssuerServer) -> dict[str, str]:
    return bad_tokens(live_issuer.issuer)


@pytest.mark.parametrize("case", REASONS)
def test_bad_token_is_denied_with_its_reason(
    run: Run, verify: tuple[str, ...], refused: dict[str, str], case: str
) -> None:
    reason = case.partition("-")[0]
    text, report = run(*verify, refused[case]), run(*verify, refused[case], "--json")
    said = json.loads(report.out)

    assert (text.status, text.err) == (report.status, report.err) == (1, "")
    assert text.out.startswith(f"denied: {reason} (")
    assert (said["verdict"], said["reason"], said["claims_verified"]) == ("denied", reason, False)


@pytest.mark.parametrize("case", REASONS)
def test_claims_that_no_signature_vouches_for_are_marked(
    run: Run, verify: tuple[str, ...], refused: dict[str, str], case: str
) -> None:
    out = run(*verify, refused[case]).out

    assert "claims:" not in out
    assert "header:" not in out.splitlines()
    assert ("claims (NOT verified):" in out) == (case != "token_malformed")
    assert ("header (NOT verified):" in out) == (case != "token_malformed")


EXPLAINED = {
    "token_malformed": ("1 segment, 6 characters: no JWT", ""),
    "token_expired": ("exp is ", "--leeway"),
    "signature_invalid": ("a signature that is not by the issuer's key; header: kid is ", "--jwks-url"),
    "key_not_found": ('header: kid is "unknown", alg is "RS256"', "--jwks-url"),
    "claim_invalid": ('aud is "client_01JOTHER"', "--audience"),
    "claim_missing": ("no org_id", "--org-id-pattern, --org-id-claim"),
    "algorithm_not_allowed": ('header: alg is "none"', ""),
}


@pytest.mark.parametrize("case", REASONS[:-1])
def test_what_was_found_and_which_setting_decides_is_said(
    run: Run, verify: tuple[str, ...], refused: dict[str, str], case: str
) -> None:
    found, setting = EXPLAINED[case]
    report = json.loads(run(*verify, refused[case], "--json").out)
    lines = run(*verify, refused[case]).out.splitlines()

    assert report["found"].startswith(found)
    assert (report["setting"], lines[1].startswith(f"  found: {found}")) == (setting, True)
    assert lines[2] == f"  expected: {report['expected']}"
    assert (f"  setting: {setting}" in lines) == bool(setting)


def test_hostile_claims_and_headers_are_text(run: Run, verify: tuple[str, ...], live_issuer: IssuerServer) -> None:
    token = live_issuer.issuer.mint(CLIENT_ID, claims={"aud": "\u202e\n\x1b[2J"}, header={"odd": "\x1b]0;\u202e"})
    out = run(*verify, token).out

    assert all(line.isprintable() for line in out.splitlines())
    assert token.rpartition(".")[2] not in out


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        pytest.param(lambda it: it.answer(b"no", status="404 Not Found"), "status 404", id="404"),
        pytest.param(lambda it: it.answer(b"<html>"), "not JSON", id="login-page"),
        pytest.param(lambda it: it.answer(b"", "location: /", status="301 Moved"), "redirect", id="redirect"),
        pytest.param(
            lambda it: it.answer(b'{"keys": [{"kty": "odd", "kid": "k"}]}'),
            "no usable key (key 'k': a key type or curve that is not supported)",
            id="no-usable-key",
        ),
    ],
)
def test_why_keys_cannot_be_had_is_said(
    run: Run, ec_key: SigningKey, answer: Callable[[Connection], None], cause: str
) -> None:
    token = ec_key.sign(m2m_claims(time.time()))
    with Loopback(answer) as server:
        url = server.url
        done = run(*VERIFY[:-1], "--algorithms", "ES256", "--jwks-url", url, token)

    line = f"undecided: key_set_unavailable (no keys from {url}: {cause})"
    assert (done.status, done.out.splitlines()[0]) == (3, line)


@pytest.mark.usefixtures("secret")
def test_token_goes_by_the_proxy_and_the_authorities_that_are_asked_for(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = ("--issuer", "https://acme.authkit.example")
    with Loopback(lambda it: it.send(b"HTTP/1.1 403 Forbidden\r\n\r\n")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        flag = run(*TOKEN, *issuer, "--proxy-from-env")
        monkeypatch.setenv("AUTHZ_PROXY_FROM_ENV", "true")
        variable = run(*TOKEN, *issuer)
        asked = len(proxy.requests)
    refused = run(*TOKEN, *issuer, "--ca-file", str(tmp_path / "none.pem"))

    line = "authz: no token from https://acme.authkit.example/oauth2/token: proxy\n"
    assert (flag, variable, asked) == (Done(3, "", line), Done(3, "", line), 2)
    assert refused.err.startswith("authz: ca_file: ")


@pytest.mark.parametrize("as_json", [(), ("--json",)], ids=["text", "json"])
def test_signature_is_never_printed(
    run: Run, verify: tuple[str, ...], refused: dict[str, str], live_issuer: IssuerServer, as_json: tuple[str, ...]
) -> None:
    for token in (live_issuer.issuer.mint(CLIENT_ID), *refused.values()):
        done = run(*verify, token, *as_json)
        signature = token.rpartition(".")[2]

        assert not signature or signature not in done.out + done.err


def test_issuer_that_is_down_leaves_it_undecided(run: Run) -> None:
    arguments = ("verify", "--issuer", NOBODY, "--audience", AUDIENCE, unsigned_for(NOBODY))
    done, report = run(*arguments), run(*arguments, "--json")

    assert (done.status, report.status) == (3, 3)
    assert done.out.startswith("undecided: key_set_unavailable")
    assert (json.loads(report.out)["verdict"], json.loads(report.out)["claims_verified"]) == ("undecided", False)


def unsigned_for(issuer: str) -> str:
    return SigningKey.generate("unknown", "ES256").sign(m2m_claims(time.time(), iss=issuer), {"alg": "RS256"})


def test_token_may_come_from_standard_input(tmp_path: Path, verify: tuple[str, ...], live_issuer: IssuerServer) -> None:
    token = live_issuer.issuer.mint(CLIENT_ID)
    done = programs.run(*verify, folder=tmp_path, stdin=f"  {token}\n")

    assert (done.returncode, done.stdout.splitlines()[0], done.stderr) == (0, "allowed", "")
    assert programs.run(*verify, "-", folder=tmp_path, stdin=token).returncode == 0


@pytest.mark.parametrize("stdin", [b"", b"\xff\xfe", b"caf\xe9." * 2, b"\x00", b"a" * 100_000])
def test_any_bytes_on_standard_input_are_just_denied(tmp_path: Path, verify: tuple[str, ...], stdin: bytes) -> None:
    done = programs.run(*verify, folder=tmp_path, stdin=stdin, PYTHONIOENCODING="utf-8:strict")

    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("denied: token_malformed")


def test_flag_goes_before_variable_and_that_before_the_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live_issuer: IssuerServer
) -> None:
    token, audience = live_issuer.issuer.mint(CLIENT_ID), live_issuer.issuer.directory.audience
    (tmp_path / ".env").write_text(f"AUTHZ_ISSUER={live_issuer.url}\nAUTHZ_AUDIENCE={audience}\n")
    from_file = run("verify", token, "--env-file", ".env")
    monkeypatch.setenv("AUTHZ_AUDIENCE", "client_01JOTHER")
    from_variable = run("verify", token, "--env-file", ".env")
    from_flag = run("verify", token, "--audience", audience, "--env-file", ".env")

    assert (from_file.status, from_variable.status, from_flag.status) == (0, 1, 0)


def test_list_is_given_by_repeating_the_flag(run: Run, verify: tuple[str, ...], live_issuer: IssuerServer) -> None:
    assert run(*verify[:-1], "client_01JOTHER", *verify[-2:], live_issuer.issuer.mint(CLIENT_ID)).status == 0


def test_switch_needs_no_value(run: Run, verify: tuple[str, ...], live_issuer: IssuerServer) -> None:
    token = live_issuer.issuer.mint(CLIENT_ID, claims={"sid": "session_01", "sub": "user_01"})

    assert run(*verify, token).status == 1
    assert run(*verify, token, "--allow-user-tokens").status == 0


# ---- token ----


@pytest.mark.usefixtures("secret")
@pytest.mark.parametrize("method", ["client_secret_post", "client_secret_basic"])
def test_token_is_all_that_is_printed(
    run: Run, verify: tuple[str, ...], live_issuer: IssuerServer, method: str
) -> None:
    done = run("token", "--issuer", live_issuer.url, "--client-id", CLIENT_ID, "--auth-method", method)

    assert (done.status, done.err) == (0, "")
    assert run(*verify, done.out.strip()).status == 0


@pytest.mark.usefixtures("secret")
def test_token_can_come_with_its_claims(run: Run, live_issuer: IssuerServer) -> None:
    done = run("token", "--issuer", live_issuer.url, "--client-id", CLIENT_ID, "--json")
    answer = json.loads(done.out)

    assert answer.keys() == {"access_token", "claims"}
    assert answer["claims"]["org_id"] == ACME


@pytest.mark.usefixtures("secret")
def test_issuer_may_be_a_variable(run: Run, live_issuer: IssuerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_ISSUER", live_issuer.url)

    assert run("token", "--client-id", CLIENT_ID).status == 0


@pytest.mark.usefixtures("secret")
def test_endpoint_goes_before_the_variable(
    run: Run, live_issuer: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTHZ_ISSUER", NOBODY)

    assert run("token", "--client-id", CLIENT_ID, "--token-url", f"{live_issuer.url}/oauth2/token").status == 0


@pytest.mark.usefixtures("secret")
def test_scopes_are_asked_for(run: Run, live_issuer: IssuerServer) -> None:
    arguments = ("token", "--issuer", live_issuer.url, "--client-id", CLIENT_ID, "--json", "--scope")

    assert json.loads(run(*arguments, "ledger:read").out)["claims"]["scope"] == "ledger:read"
    assert (
        json.loads(run(*arguments, "ledger:read", "--scope", "ledger:write").out)["claims"]["scope"]
        == "ledger:read ledger:write"
    )


@pytest.mark.usefixtures("secret")
def test_scope_that_the_application_may_not_have_is_denied(run: Run, live_issuer: IssuerServer) -> None:
    done = run("token", "--issuer", live_issuer.url, "--client-id", CLIENT_ID, "--scope", "admin")

    assert (done.status, done.out) == (1, "")
    assert done.err.endswith(": status 400 (invalid_scope)\n")


def test_secret_may_come_from_a_file(run: Run, live_issuer: IssuerServer, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    done = run("token", "--issuer", live_issuer.url, "--client-id", CLIENT_ID, "--client-secret-file", "secret")

    assert (done.status, done.err) == (0, "")


def test_secret_may_come_from_standard_input(tmp_path: Path, live_issuer: IssuerServer) -> None:
    arguments = ("token", "--issuer", live_issuer.url, "--client-id", CLIENT_ID, "--client-secret-file", "-")
    done = programs.run(*arguments, folder=tmp_path, stdin=f"{SECRET}\n")

    assert (done.returncode, done.stderr) == (0, "")
    assert programs.run(*arguments, folder=tmp_path, stdin=b"\xff").returncode == 1
    assert programs.run(*arguments, folder=tmp_path, stdin=b"").returncode == 2


def test_wrong_secret_is_denied_and_not_printed(
    run: Run, live_issuer: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTHZ_CLIENT_SECRET", "another-development-secret")
    done = run("token", "--issuer", live_issuer.url, "--client-id", CLIENT_ID)

    assert (done.status, done.out) == (1, "")
    assert done.err == f"authz: no token from {live_issuer.url}/oauth2/token: status 401 (invalid_client)\n"


@pytest.mark.usefixtures("secret")
def test_what_the_token_is_for_is_asked_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_AUDIENCE", "whom this very server is")
    body = json.dumps({"access_token": "good", "token_type": "bearer", "expires_in": "300"}).encode()
    with Loopback(lambda connection: connection.answer(body)) as endpoint:
        arguments = ("token", "--token-url", endpoint.url, "--client-id", CLIENT_ID)
        resources = ("--resource", "https://a.example", "--resource", "https://b.example")

        assert run(*arguments).out == "good\n"
        assert run(*arguments, *resources, "--audience", "ledger").out == "good\n"
    sent = [parse_qs(request.rpartition(b"\r\n\r\n")[2].decode()) for request in endpoint.requests]

    assert [form.get("resource") for form in sent] == [None, ["https://a.example", "https://b.example"]]
    assert [form.get("audience") for form in sent] == [None, ["ledger"]]


@pytest.mark.usefixtures("secret")
def test_token_endpoint_behind_a_page_leaves_it_undecided(run: Run) -> None:
    with Loopback(lambda connection: connection.answer(b"<html>", status="403 Forbidden")) as endpoint:
        done, url = run("token", "--token-url", endpoint.url, "--client-id", CLIENT_ID), endpoint.url

    assert done == Done(3, "", f"authz: no token from {url}: status 403\n")


@pytest.mark.usefixtures("secret")
def test_token_endpoint_that_is_down_leaves_it_undecided(run: Run) -> None:
    done = run("token", "--issuer", NOBODY, "--client-id", CLIENT_ID)

    assert done == Done(3, "", f"authz: no token from {NOBODY}/oauth2/token: refused\n")


# ---- serve, issuer, envoy-config ----


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_in_peace(run: Run, ec_key: SigningKey, tmp_path: Path, number: int) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    address = f"unix:{tmp_path}/authz.sock"

    def end_when_serving() -> None:
        # It may be asked before it listens.
        with grpc.insecure_channel(address, options=[("grpc.initial_reconnect_backoff_ms", 50)]) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=120)
        os.kill(os.getpid(), number)

    ending = threading.Thread(target=end_when_serving)
    ending.start()
    done = run(*SERVE, "--jwks", "jwks.json", "--listen", address)
    ending.join()
    # Event loops of one process share gRPC's poller, and in this one there were others: asyncio logs when one of
    # them is woken for nothing.
    events = [json.loads(line) for line in done.err.splitlines() if "PollerCompletionQueue" not in line]

    assert (done.status, done.out) == (0, "")
    assert [event["event"] for event in events] == ["listening", "health", "health", "stopped"]
    assert events[0]["addresses"] == [address]


def test_serve_does_without_uvloop(tmp_path: Path, ec_key: SigningKey) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    script = "import sys; sys.modules['uvloop'] = None; from authz.cli import main; main()"
    command = (sys.executable, "-W", "error", "-c", script)
    with Program(*SERVE, "--jwks", "jwks.json", "--listen", LOOPBACK, folder=tmp_path, command=command) as program:
        program.await_event("health", status="SERVING")
        program.send(signal.SIGTERM)

        assert program.wait() == 0


def test_serve_announces_the_port_that_it_took(tmp_path: Path, ec_key: SigningKey) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    with Program(*SERVE, "--jwks", "jwks.json", "--listen", LOOPBACK, folder=tmp_path) as program:
        event = program.await_event("listening")
        program.send(signal.SIGTERM)

        assert program.wait() == 0
    assert re.fullmatch(r"127\.0\.0\.1:[1-9]\d*", event["addresses"][0])
    assert (event["issuer"], event["audience"]) == (ISSUER, [AUDIENCE])


@pytest.mark.parametrize("engine", ["grpcio", "native"])
def test_decisions_of_serve_can_be_watched(tmp_path: Path, ec_key: SigningKey, engine: str) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    options = ("--jwks", "jwks.json", "--listen", LOOPBACK, "--engine", engine, "--audit-listen", LOOPBACK)
    with Program(*SERVE, *options, folder=tmp_path) as program:
        audit_address = program.await_event("audit_listening")["address"]
        [address] = program.await_event("listening")["addresses"]
        with grpc.insecure_channel(audit_address) as audit_channel, grpc.insecure_channel(address) as channel:
            watching = AuditStub(audit_channel).Watch(WatchRequest(), timeout=programs.PATIENCE)
            watching.initial_metadata()
            check = channel.unary_unary(CHECK, CheckRequest.SerializeToString, CheckResponse.FromString)
            check(in_headers(), timeout=programs.PATIENCE)
            told = next(watching).decision
            # A watcher that is still there does not keep it from ending.
            program.send(signal.SIGTERM)

            assert program.wait() == 0
    assert (told.door, told.verdict, told.reason) == (Decision.DOOR_ENVOY, Decision.VERDICT_DENIED, "token_missing")


def test_serve_asks_the_issuer_whether_a_token_was_withdrawn(tmp_path: Path, rsa_key: SigningKey) -> None:
    with (
        IssuerServer(Issuer(keys=[rsa_key])) as issuer,
        Program(
            *("serve", "--issuer", issuer.url, "--audience", issuer.issuer.directory.audience, "--listen", LOOPBACK),
            *("--introspect-max-age", "0", "--introspection-client-id", CLIENT_ID),
            folder=tmp_path,
            AUTHZ_INTROSPECTION_CLIENT_SECRET=SECRET,
        ) as program,
    ):
        [address] = program.await_event("listening")["addresses"]
        token = issuer.issuer.mint(CLIENT_ID)
        question = in_headers(("content-type", "application/grpc"), ("authorization", f"Bearer {token}"))
        with grpc.insecure_channel(address) as channel:
            check = channel.unary_unary(CHECK, CheckRequest.SerializeToString, CheckResponse.FromString)
            before = check(question, timeout=programs.PATIENCE)
            issuer.issuer.revoke(token=token)
            after = check(question, timeout=programs.PATIENCE)
        program.send(signal.SIGTERM)
        status = program.wait()

    assert (before.status.code, Denial(after).reason, status) == (0, "TOKEN_INACTIVE", 0)
    assert SECRET not in program.text
    assert token not in program.text


def test_serve_asks_workos_who_an_organization_is(tmp_path: Path, rsa_key: SigningKey) -> None:
    with IssuerServer(Issuer(keys=[rsa_key])) as issuer, IssuerServer() as workos:
        key = workos.issuer.directory.api_key
        program = Program(
            *("serve", "--issuer", issuer.url, "--audience", issuer.issuer.directory.audience, "--listen", LOOPBACK),
            *("--workos-base-url", workos.address, "--unknown-organizations", "deny", "--http-listen", LOOPBACK),
            folder=tmp_path,
            AUTHZ_WORKOS_API_KEY=key,
        )
        with program:
            probes = program.await_event("probes")["address"]
            [address] = program.await_event("listening")["addresses"]

            def ask(org_id: str) -> CheckResponse:
                token = issuer.issuer.mint(CLIENT_ID, claims={"org_id": org_id})
                question = in_headers(("content-type", "application/grpc"), ("authorization", f"Bearer {token}"))
                return check(question, timeout=programs.PATIENCE)

            with grpc.insecure_channel(address) as channel:
                check = channel.unary_unary(CHECK, CheckRequest.SerializeToString, CheckResponse.FromString)
                known, unknown = ask(ACME), ask("org_2")
                workos.stop()
                remembered, new = ask(ACME), ask("org_3")
            with httpx2.Client(trust_env=False, timeout=PATIENCE) as client:
                metrics = client.get(f"http://{probes}/metrics").text
                ready = client.get(f"http://{probes}/readyz").status_code
            program.send(signal.SIGTERM)
            status = program.wait()

    tenants = [
        {option.header.key: option.header.value for option in response.ok_response.headers}["x-org-tenant"]
        for response in (known, remembered)
    ]
    assert tenants == ["tenant-acme", "tenant-acme"]
    assert (Denial(unknown).reason, Denial(new).reason) == ("ORGANIZATION_UNKNOWN", "DIRECTORY_UNAVAILABLE")
    assert (Denial(unknown).http_status, Denial(new).http_status) == (403, 503)
    for result, count in {"found": 1, "unknown": 1, "failed": 1, "refused": 0}.items():
        assert f'authz_directory_requests_total{{result="{result}"}} {count}.0' in metrics
    assert (ready, status) == (200, 0)
    assert key not in program.text


def test_secret_of_introspection_is_no_flag(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_INTROSPECTION_CLIENT_SECRET", SECRET)
    refused = run(*SERVE, "--introspection-client-secret", SECRET)
    shown = run("serve", "--help")

    assert (refused.status, shown.status) == (2, 0)
    assert SECRET not in refused.err + shown.out
    assert "--introspection-client-secre" in shown.out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_issuer_serves_until_it_is_told_to_end(tmp_path: Path, number: int) -> None:
    with Program("issuer", "--listen", LOOPBACK, "--keys", "keys.json", folder=tmp_path) as program:
        line = program.await_line(lambda line: "listening on" in line)
        url = re.findall(r"http://127\.0\.0\.1:\d+", line)[0]
        with httpx2.Client(trust_env=False, timeout=PATIENCE) as client:
            keys = client.get(f"{url}/oauth2/jwks").json()["keys"]
        program.send(number)

        assert program.wait() == 0
    assert "never use it in production" in line
    assert (len(keys), (tmp_path / "keys.json").stat().st_mode & 0o777) == (1, 0o600)


@pytest.mark.parametrize(
    ("authz", "clusters"),
    [
        pytest.param(["--authz", "unix:/run/authz.sock"], 2, id="unix"),
        pytest.param(["--authz", "unix:/run/authz.sock", "--workers", "3"], 2, id="workers"),
        pytest.param(["--authz", "[::1]:9191", "--listen", "[::1]:10000"], 2, id="ipv6"),
        pytest.param(["--authz", "10.0.0.1:9191", "--authz", "authz.example:9191"], 2, id="several"),
        pytest.param(["--authz", "tls:authz.example:9191", "--authz-ca-file", "ca.pem"], 2, id="tls"),
        pytest.param(["--http-upstream", "unix:/run/web.sock", "--admin", "127.0.0.1:9901"], 3, id="http"),
    ],
)
def test_envoy_accepts_the_bootstrap_that_is_printed(run: Run, authz: Sequence[str], clusters: int) -> None:
    Path("ca.pem").write_bytes(Authority().root)
    authz = [str(Path(word).absolute()) if word == "ca.pem" else word for word in authz]
    done = run("envoy-config", "--upstream", "ledger.example:50051", *authz)
    config = yaml.safe_load(done.out)

    validate(done.out)
    assert (done.status, done.err) == (0, "")
    assert len(config["static_resources"]["clusters"]) == clusters
    assert ("admin" in config) is ("--admin" in authz)


def test_json_says_the_same_without_comments(run: Run) -> None:
    printed = ("envoy-config", "--upstream", "127.0.0.1:50051")

    assert json.loads(run(*printed, "--json").out) == yaml.safe_load(run(*printed).out)


def test_envoy_asks_where_the_settings_say(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_LISTEN", "unix:/run/authz.sock,0.0.0.0:9191")
    monkeypatch.setenv("AUTHZ_WORKERS", "2")
    [cluster] = yaml.safe_load(run("envoy-config", "--format", "filter").out)["clusters"]
    [group] = cluster["load_assignment"]["endpoints"]

    assert [entry["endpoint"]["address"]["pipe"]["path"] for entry in group["lb_endpoints"]] == [
        "/run/authz.sock.0",
        "/run/authz.sock.1",
    ]


def test_filter_fits_into_a_bootstrap_of_ones_own(run: Run) -> None:
    printed = yaml.safe_load(run("envoy-config", "--format", "filter").out)
    whole = yaml.safe_load(run("envoy-config", "--upstream", "127.0.0.1:50051").out)["static_resources"]
    manager = whole["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    theirs = printed["http_connection_manager"]

    assert theirs.pop("http_filters") == manager["http_filters"][:-1]
    assert theirs.items() <= manager.items()
    assert printed["clusters"] == whole["clusters"][:1]
    _, grpc = manager["route_config"]["virtual_hosts"][0]["routes"]
    assert printed["grpc_route"].items() <= grpc["route"].items()
    assert printed["http_route"] == {"timeout": "0s", "idle_timeout": "300s"}
    [options] = whole["clusters"][1]["typed_extension_protocol_options"].values()
    assert options["explicit_http_config"] == {"http2_protocol_options": printed["upstream_http2_protocol_options"]}
    assert printed["upstream_cluster"].pop("dns_lookup_family") == "V4_PREFERRED"
    assert printed["upstream_cluster"].items() <= whole["clusters"][1].items()


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("istio", [None, "AuthorizationPolicy", "EnvoyFilter"]),
        ("envoy-gateway", ["SecurityPolicy", "ClientTrafficPolicy", "BackendTrafficPolicy", "ReferenceGrant"]),
        ("kubernetes", ["Deployment", "Service", "ConfigMap", "NetworkPolicy"]),
    ],
)
def test_other_formats_are_resources(run: Run, name: str, kinds: Sequence[str | None]) -> None:
    address = ("--authz", "checks.edge.svc.cluster.local:9000")
    done = run("envoy-config", "--format", name, "--upstream", "127.0.0.1:50051", *address)

    assert [document.get("kind") for document in yaml.safe_load_all(done.out)] == kinds
    assert "9000" in done.out


def test_organizations_of_the_issuer_are_printed_to_begin_with(run: Run) -> None:
    assert run("issuer", "--print-config") == Done(0, DEFAULT_FILE.read_text(encoding="utf-8"), "")


# ---- The policy ----


def test_good_policy_is_said_to_be_good(run: Run, tmp_path: Path) -> None:
    text = "{name: ledger, allow_rules: [{name: r}], organizations: {org_a: {}, org_b: {}}}"
    (tmp_path / "policy.yaml").write_text(text)

    done = run("policy", "check", "policy.yaml")

    assert done == Done(0, "policy.yaml: ledger: 0 deny rules, 1 allow rule, 2 organizations\n", "")


def test_path_that_no_method_can_have_is_hinted_at(run: Run, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(
        "{name: p, allow_rules: [{name: r, request: {paths: [a.B/C, /a.B/*, '*/D']}}]}"
    )

    done = run("policy", "check", "policy.yaml")

    assert done.out.splitlines()[1:] == ["policy.yaml: hint: rule r: no method matches a.B/C; methods begin with /"]


def test_header_that_is_always_removed_is_an_error_in_every_command(run: Run, tmp_path: Path) -> None:
    request = "{headers: [{key: x-org-id, values: [org_a]}]}"
    (tmp_path / "policy.yaml").write_text(f"{{name: p, allow_rules: [{{name: r, request: {request}}}]}}")

    done = run("policy", "check", "policy.yaml")

    assert done.status == 2
    assert "asks for the header 'x-org-id', which is removed from every call" in done.err


# ---- an issuer whose endpoints are looked up, and several issuers ----


@pytest.mark.usefixtures("secret")
def test_token_and_verify_look_up_what_the_issuer_publishes(
    run: Run, live_issuer: IssuerServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = live_issuer.requests["/.well-known/oauth-authorization-server"]
    token = run("token", "--issuer", live_issuer.url, "--discover", "--client-id", CLIENT_ID).out.strip()
    monkeypatch.setenv("AUTHZ_DISCOVER", "true")
    again = run("token", "--issuer", live_issuer.url, "--client-id", CLIENT_ID)
    monkeypatch.delenv("AUTHZ_DISCOVER")
    audience = live_issuer.issuer.directory.audience
    alone = run("verify", "--issuer", live_issuer.url, "--audience", audience, "--discover", token)
    file = tmp_path / "issuers.json"
    listed = [{"issuer": url, "audience": audience, "organizations": "org_.*"} for url in (live_issuer.url, NOBODY)]
    listed[1]["organizations"] = "other_.*"
    file.write_text(json.dumps({"issuers": listed}))
    several = run("verify", "--issuers", str(file), token)

    assert (again.status, alone.status, several.status) == (0, 0, 0)
    assert alone.out == several.out
    assert f"org_id: {ACME}" in several.out
    assert live_issuer.requests["/.well-known/oauth-authorization-server"] - before == 3


@pytest.mark.usefixtures("secret")
def test_token_endpoint_that_is_given_is_not_looked_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("token", "--token-url", NOBODY, "--client-id", CLIENT_ID)
    done = run(*arguments, "--discover")
    monkeypatch.setenv("AUTHZ_DISCOVER", "true")

    assert done == Done(2, "", "authz: discover: token_url says already where to ask; give one of them\n")
    assert run(*arguments) == Done(3, "", f"authz: no token from {NOBODY}: refused\n")
