"""``authz check`` with real servers: how it explains a verdict, and that it repeats no token."""

import ast
import base64
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from authz import cli, errors
from authz.call.reasons import MEANINGS
from authz.cli import verdict
from authz.demo.issuer.signing import SigningKey
from authz.envoy import client
from authz.envoy.v3.external_auth_pb2 import CheckResponse, HeaderValue, HeaderValueOption, OkHttpResponse, Status
from authz.errors import AuthzError
from tests import programs
from tests.certificates import Authority
from tests.doubles import AUDIENCE, CLIENT, ISSUER, ORG, jwks, m2m_claims
from tests.programs import Program

pytestmark = pytest.mark.usefixtures("no_settings")

METHOD = ("--method", "/authz.demo.v1.LedgerService/PostEntry")
PUBLIC = "/grpc.health.v1.Health/Check"
NOBODY = "127.0.0.1:9"


class Done(NamedTuple):
    status: int
    out: str
    err: str


Check = Callable[..., Done]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, ec_key: SigningKey, authority: Authority) -> Path:
    """Return a folder with keys and certificates."""
    home = tmp_path_factory.mktemp("check")
    (home / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    for name, certificate in (("server", authority.issue_for_loopback()), ("client", authority.issue())):
        (home / f"{name}.pem").write_bytes(certificate.chain)
        (home / f"{name}.key").write_bytes(certificate.key)
    (home / "ca.pem").write_bytes(authority.root)
    return home


@pytest.fixture(scope="module")
def addresses(home: Path) -> Iterator[Sequence[str]]:
    """Return where a server listens: plaintext, TLS, and a Unix socket."""
    flags = ("--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256", "--public-methods", PUBLIC)
    listen = ("--listen", "127.0.0.1:0", "--listen", "tls:127.0.0.1:0", "--listen", "unix:a.sock")
    tls = ("--tls-cert-file", "server.pem", "--tls-key-file", "server.key", "--tls-client-ca-file", "ca.pem")
    with Program("serve", *flags, *listen, *tls, "--jwks", "jwks.json", folder=home) as program:
        plain, secure, _ = program.await_event("listening")["addresses"]
        yield plain, secure, f"unix:{home}/a.sock"


@pytest.fixture
def token(ec_key: SigningKey) -> str:
    return ec_key.sign(m2m_claims(time.time(), scope="ledger:read ledger:write"))


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str], addresses: Sequence[str], tmp_path: Path) -> Check:
    """Return a function that asks the server about a request with that token."""

    def check(token: str | None, *arguments: str) -> Done:
        (tmp_path / "token").write_text(f"{token}\n")
        given = () if token is None else ("--token", "token")
        where = () if "--server" in arguments else ("--server", addresses[0])
        status = cli.run(["check", *METHOD[: 0 if "--method" in arguments else 2], *given, *where, *arguments])
        captured = capsys.readouterr()
        return Done(status, captured.out, captured.err)

    return check


def report(done: Done) -> Any:
    return json.loads(done.out)


# ---- What it says ----


def test_allowed_request_is_shown_as_the_upstream_sees_it(check: Check, token: str) -> None:
    text, said = check(token), report(check(token, "--json"))

    assert (text.status, text.err) == (0, "")
    assert text.out.splitlines()[:4] == [
        "allowed",
        f"  organization: {ORG}",
        f"  client: {CLIENT}",
        "  scopes: ledger:read ledger:write",
    ]
    assert f"    x-org-id: {ORG}\n" in text.out
    assert (said["verdict"], said["scopes"]) == ("allowed", ["ledger:read", "ledger:write"])
    assert said["headers_set"]["x-client-id"] == CLIENT
    assert "x-org-id-bin" in said["headers_removed"]


def test_public_method_needs_no_token_and_has_no_organization(check: Check) -> None:
    done = check(None, "--method", PUBLIC)

    assert done.status == 0
    assert "without an organization" in done.out


def test_denied_request_is_explained(check: Check) -> None:
    text, said = check(None), report(check(None, "--json"))

    assert (text.status, text.err) == (1, "")
    assert text.out.splitlines() == [
        "denied: token_missing",
        "  gRPC code: UNAUTHENTICATED",
        "  HTTP status: 401",
        "  message: No token provided",
        "  headers sent:",
        '    www-authenticate: Bearer realm="api"',
        f"  {MEANINGS['token_missing']}",
    ]
    assert said["explanation"] == MEANINGS["token_missing"]


@pytest.mark.parametrize("http", [(), ("--http",)], ids=["grpc", "http"])
def test_reason_is_that_of_the_token(
    check: Check, ec_key: SigningKey, other_key: SigningKey, http: tuple[str, ...]
) -> None:
    tokens = {
        "token_expired": ec_key.sign(m2m_claims(time.time() - 7200)),
        "token_malformed": "opaque-token-0123456789",
        "signature_invalid": other_key.sign(m2m_claims(time.time()), {"kid": ec_key.kid}),
        "claim_invalid": ec_key.sign(m2m_claims(time.time(), aud="client_01JOTHER")),
    }
    said = [report(check(token, *http, "--json")) for token in tokens.values()]

    assert [answer["reason"] for answer in said] == list(tokens)
    assert {answer["http_status"] for answer in said} == {401}
    assert [answer["found"].split(" is ")[0] for answer in said] == [
        "exp",
        "1 segment, 23 characters: no JWT",
        "a signature that",
        "iss",
    ]
    assert [answer["setting"].split(", ")[0] for answer in said] == ["--leeway", "", "--jwks-url", "--issuer"]
    assert [answer["header"].get("alg") for answer in said] == ["ES256", None, "ES256", "ES256"]


def test_headers_and_context_reach_the_server(check: Check, token: str) -> None:
    done = check(token, "--header", "X-Org-Id: org_FORGED", "--context", "route=ledger", "--header", "x-odd:caf\udce9")

    assert done.status == 0
    assert "org_FORGED" not in done.out


def test_content_type_decides_what_it_is(check: Check, token: str) -> None:
    no_rpc = ("--method", "/whoami")

    assert report(check(token, *no_rpc, "--json"))["reason"] == "request_malformed"
    assert report(check(token, *no_rpc, "--http", "--json"))["verdict"] == "allowed"


def test_http_method_reaches_the_server(check: Check, token: str) -> None:
    http = ("--method", "/whoami", "--http")

    assert report(check(token, *http, "--verb", "DELETE", "--json"))["verdict"] == "allowed"
    for verb, sent in (("DELETE", "DELETE"), ("get", "get"), ("", "GET")):
        asked = client.question("/whoami", (), {}, is_http=True, verb=verb).attributes.request.http
        assert asked.method == sent
        assert (":method", sent.encode()) in [(each.key, each.raw_value) for each in asked.header_map.headers]


def test_http_method_needs_http(check: Check, token: str) -> None:
    assert check(token, "--verb", "GET") == (2, "", "authz: verb: give --http, too; gRPC is always POST\n")
    assert check(token, "--method", "/a", "--http", "--verb", "G\n") == (
        2,
        "",
        "authz: verb: give an HTTP method, such as DELETE\n",
    )


# ---- Which server ----


def test_unix_socket_can_be_asked(check: Check, token: str, addresses: Sequence[str]) -> None:
    assert check(token, "--server", addresses[2]).status == 0


def test_server_with_mutual_tls_can_be_asked(check: Check, token: str, addresses: Sequence[str], home: Path) -> None:
    trusting = ("--server", addresses[1], "--ca-file", f"{home}/ca.pem")
    own = ("--cert-file", f"{home}/client.pem", "--key-file", f"{home}/client.key")

    assert check(token, *trusting, *own).status == 0
    assert check(token, *trusting, "--timeout", "20").status == 3


def test_server_that_cannot_be_reached_leaves_it_undecided(check: Check, token: str) -> None:
    text, said = check(token, "--server", NOBODY), report(check(token, "--server", NOBODY, "--json"))

    assert (text.status, text.err) == (3, "")
    assert text.out.startswith("undecided\n  gRPC code: UNAVAILABLE\n")
    assert said["explanation"].startswith("The server cannot be reached.")


def test_server_without_keys_leaves_it_undecided(check: Check, token: str, tmp_path: Path) -> None:
    verifier = ("--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256", "--jwks-url", f"http://{NOBODY}/")
    with Program("serve", *verifier, "--listen", "127.0.0.1:0", folder=tmp_path) as program:
        [address] = program.await_event("listening")["addresses"]
        done = check(token, "--server", address, "--timeout", "20")

    assert done.status == 3
    assert done.out.startswith("undecided: key_set_unavailable\n  gRPC code: UNAVAILABLE\n  HTTP status: 503\n")


# ---- The token ----


def test_token_may_come_from_standard_input(tmp_path: Path, token: str, addresses: Sequence[str]) -> None:
    done = programs.run("check", *METHOD, "--token", "-", "--server", addresses[0], folder=tmp_path, stdin=f"{token}\n")

    assert (done.returncode, done.stderr) == (0, "")


def test_token_is_never_printed(check: Check, token: str) -> None:
    said = [check(token), check(token, "--json"), check(f"{token}x"), check(token, "--server", NOBODY)]
    said.append(check(None, "--token", token))

    assert [done.status for done in said] == [0, 0, 1, 3, 2]
    assert [done for done in said if token.rpartition(".")[2] in done.out + done.err] == []


def test_token_that_the_server_repeats_is_masked() -> None:
    header = HeaderValueOption(header=HeaderValue(key="authorization", value="Bearer a.b.c"))
    answer = CheckResponse(status=Status(code=0), ok_response=OkHttpResponse(headers=[header]))
    text = "\n".join(verdict.lines_of(verdict.without("a.b.c", verdict.report_of(answer))))

    assert "    authorization: Bearer [token]\n" in text


@pytest.mark.parametrize("details", ["", "no base64!", base64.b64encode(b"\xff\xff").decode()])
def test_answer_without_readable_details_is_a_denial_all_the_same(details: str) -> None:
    answer = CheckResponse(status=Status(code=7))
    answer.denied_response.headers.add(header=HeaderValue(key="grpc-status-details-bin", value=details))
    said = verdict.report_of(answer)

    assert (said["verdict"], said["reason"], said["http_status"]) == ("denied", "", 403)


def test_reason_comes_from_error_info_first() -> None:
    info = ErrorInfo(reason="TOKEN_EXPIRED")
    details = verdict.Status(code=16)
    details.details.add().Pack(info)
    answer = CheckResponse(status=Status(code=16))
    value = base64.b64encode(details.SerializeToString()).decode()
    answer.denied_response.headers.add(header=HeaderValue(key="grpc-status-details-bin", value=value))

    assert verdict.report_of(answer)["reason"] == "token_expired"


# ---- Every reason ----


def reasons_of(kind: type[AuthzError]) -> Iterator[str]:
    for subclass in kind.__subclasses__():
        yield subclass.reason
        yield from reasons_of(subclass)


def reasons_given(folder: Path) -> Iterator[str]:
    """Yield every reason that is written out where an error is raised or changed."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("Error", "super().__init__")):
                values = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "attr", "") == "reason":
                values = [node.value]
            else:
                continue
            yield from (value.value for value in values if isinstance(value, ast.Constant))


def test_every_reason_has_its_sentences() -> None:
    folder = Path(errors.__file__).parent
    known = set(reasons_of(AuthzError)) | {str(reason) for reason in reasons_given(folder)}

    assert {"claim_missing", "request_malformed"} <= known
    assert known - MEANINGS.keys() == set()
    assert MEANINGS.keys() - known == set()
    assert all(text.endswith(".") and text.count(". ") >= 1 for text in MEANINGS.values())


# ---- What is wrong ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "Check"), "method: give /package.Service/Method"),
        (("--method", "/a\x00b"), "method: give"),
        (("--server", "9191"), "server: '9191' is neither HOST:PORT, tls:HOST:PORT nor unix:PATH"),
        (("--header", "nothing"), "header: must be NAME:VALUE, such as --header x-tier:gold"),
        (("--header", ":authority: x"), "header: must be NAME:VALUE, such as --header x-tier:gold"),
        (("--header", "Authorization: Bearer x"), "header: give the token with --token"),
        (("--context", "=x"), "context: give KEY=VALUE"),
        (("--token", "no-such-file"), "token: no such file; give the name of one, or - for standard input"),
        (("--token", "/dev/null", "--server", "192.0.2.1:9191"), "server: the token would be sent in plain text"),
        (("--ca-file", "ca.pem"), "ca_file, cert_file, key_file: they are for --server tls:HOST:PORT"),
        (("--server", "tls:127.0.0.1:9", "--ca-file", "no"), "ca_file: 'no' cannot be read"),
        (("--server", "tls:127.0.0.1:9", "--cert-file", "no"), "cert_file: give --cert-file and --key-file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(check: Check, arguments: tuple[str, ...], message: str) -> None:
    done = check(None, *arguments)

    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"authz: {message}")
    assert done.err.count("\n") == 1


def test_file_of_the_token_must_be_text(check: Check, tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(os.urandom(8) + b"\xff")

    assert check(None, "--token", "bytes").err.startswith("authz: token: no such file")
