"""The programs of docs/partners.md are those of examples/partners/, and each works as a partner's client."""

import contextlib
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf import descriptor_pb2
from werkzeug.serving import make_server

from authz import Authorizer, Verifier, current_principal
from authz.connect import interceptors_sync
from authz.demo.issuer.program import IssuerServer
from authz.demo.v1 import ledger_pb2, ledger_pb2_grpc
from authz.demo.v1.ledger_connect import LedgerServiceSync, LedgerServiceWSGIApplication
from interceptors import AuthzInterceptor
from tests.certificates import Authority
from tests.missing import leave_out
from tests.programs import PATIENCE, environment
from tests.tutorial import follow

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples/partners"
TEXT = (ROOT / "docs/partners.md").read_text(encoding="utf-8")
ACME = "org_01JYACME000000000000000001"
MODULES = ROOT / ".cache/partners/node_modules"
REMEDY = "make ci-partners, on Debian and Ubuntu"
"""How a machine comes by what the programs need."""

JARS = (
    *(f"grpc-{name}" for name in ("api", "context", "core", "netty", "protobuf", "protobuf-lite", "stub")),
    *(
        "geronimo-annotation-1.3-spec",
        "gson",
        "guava",
        "jsr305",
        "opencensus-api",
        "perfmark-api",
        "perfmark-impl",
        "protobuf",
    ),
    *(
        f"netty-{name}"
        for name in (
            *(
                "buffer",
                "codec",
                "codec-http",
                "codec-http2",
                "codec-socks",
                "common",
                "handler",
                "handler-proxy",
            ),
            *("resolver", "transport", "transport-native-unix-common"),
        )
    ),
)
"""Debian's of grpc-java and of what it requires."""

PROGRAMS = {
    "python": "python/partner.py",
    "go": "go/main.go",
    "java": "java/Partner.java",
    "node": "node/partner.mjs",
    "curl": "curl/partner.sh",
}


class Ledger(ledger_pb2_grpc.LedgerServiceServicer, LedgerServiceSync):
    """Posts entries, and keeps the tokens that it was called with."""

    def __init__(self) -> None:
        self.tokens: list[str | None] = []

    def PostEntry(self, request: Any, _context: Any) -> Any:  # noqa: N802 - gRPC names methods so
        self.tokens.append(current_principal().token_id)
        entry = ledger_pb2.Entry(org_id=current_principal().org_id, account=request.draft.account)
        return ledger_pb2.PostEntryResponse(entry=entry)

    def post_entry(self, request: Any, ctx: Any) -> Any:
        return self.PostEntry(request, ctx)


class Api(NamedTuple):
    """A protected API with TLS, for gRPC and for Connect."""

    ledger: Ledger
    authorizer: Authorizer
    variables: Mapping[str, str]
    """What a partner's program reads, but for the address."""

    addresses: Mapping[str, str]
    """By language."""


@pytest.fixture(scope="module")
def issuer() -> Iterator[IssuerServer]:
    with IssuerServer() as server:
        yield server


@pytest.fixture
def api(issuer: IssuerServer, tmp_path: Path) -> Iterator[Api]:
    authority = Authority()
    application = issuer.issuer.directory.applications[0]
    variables = {
        "CA_FILE": str(tmp_path / "ca.pem"),
        "CLIENT_ID": application.client_id,
        "CLIENT_SECRET": application.client_secret,
        "TOKEN_URL": f"{issuer.url}/oauth2/token",
    }
    certificate = authority.issue_for_loopback()
    chain, key = certificate.chain, certificate.key
    for name, content in {"ca.pem": authority.root, "chain.pem": chain, "key.pem": key}.items():
        (tmp_path / name).write_bytes(content)
    ledger = Ledger()
    authorizer = Authorizer(Verifier(issuer=issuer.url, audience=issuer.issuer.directory.audience))
    server = grpc.server(ThreadPoolExecutor(4), interceptors=[AuthzInterceptor(authorizer)])
    ledger_pb2_grpc.add_LedgerServiceServicer_to_server(ledger, server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    plain = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with over_http(ledger, authorizer, tmp_path) as http:
            ports = {"curl": http, "java": plain, **dict.fromkeys(("python", "go", "node"), port)}
            yield Api(ledger, authorizer, variables, {name: f"127.0.0.1:{each}" for name, each in ports.items()})
    finally:
        server.stop(None)


@contextlib.contextmanager
def over_http(ledger: Ledger, authorizer: Authorizer, folder: Path) -> Iterator[int]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    app = LedgerServiceWSGIApplication(ledger, interceptors=interceptors_sync(authorizer))
    server = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=tls)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Sequence[str]]:
    """Return a language, and the command that runs its program."""
    return request.param, MADE[request.param](tmp_path_factory.mktemp(request.param))


def python(_folder: Path) -> Sequence[str]:
    return [sys.executable, str(FOLDER / PROGRAMS["python"])]


def go(folder: Path) -> Sequence[str]:
    need("go", "protoc", "protoc-gen-go")
    ours = folder / "src/example.com/partner"
    ours.mkdir(parents=True)
    made(["protoc", f"--proto_path={FOLDER}", f"--go_out=plugins=grpc:{folder / 'src'}", "ledger.proto"], FOLDER)
    shutil.copy(FOLDER / PROGRAMS["go"], ours)
    # What Debian packages of Go's libraries, instead of a module proxy.
    variables = {"GO111MODULE": "off", "GOPATH": f"{folder}:/usr/share/gocode", "GOFLAGS": ""}
    made(["go", "build", "-o", str(folder / "partner"), "."], ours, GOCACHE=str(ROOT / ".cache/go"), **variables)
    return [str(folder / "partner")]


def java(folder: Path) -> Sequence[str]:
    need("javac", "java", "protoc", "grpc_java_plugin")
    plugin = f"--plugin=protoc-gen-grpc-java={shutil.which('grpc_java_plugin')}"
    made(["protoc", plugin, f"--java_out={folder}", f"--grpc-java_out={folder}", "ledger.proto"], FOLDER)
    # Debian's netty has no ALPN, without which gRPC has no TLS: so this program runs without, and is else as it is.
    text = (FOLDER / PROGRAMS["java"]).read_text(encoding="utf-8")
    assert text.count("tls.build()") == 1
    plain = text.replace("tls.build()", "io.grpc.InsecureChannelCredentials.create()")
    (folder / "Partner.java").write_text(plain, encoding="utf-8")
    sources = [str(path) for path in folder.rglob("*.java")]
    libraries = ":".join(f"/usr/share/java/{name}.jar" for name in JARS)
    made(["javac", "-nowarn", "-cp", libraries, "-d", str(folder), *sources], folder)
    return ["java", "-cp", f"{folder}:{libraries}", "Partner"]


def node(folder: Path) -> Sequence[str]:
    need("node")
    if not MODULES.exists():
        leave_out("a partner's program, because its packages are not installed", "make web-clients, where there is npm")
    here = folder / "node"
    here.mkdir()
    shutil.copy(FOLDER / PROGRAMS["node"], here)
    shutil.copy(FOLDER / "ledger.proto", folder)
    (here / "node_modules").symlink_to(MODULES)
    return ["node", str(here / "partner.mjs")]


def curl(_folder: Path) -> Sequence[str]:
    need("curl", "sed")
    return ["sh", str(FOLDER / PROGRAMS["curl"])]


MADE: Mapping[str, Callable[[Path], Sequence[str]]] = {
    "python": python,
    "go": go,
    "java": java,
    "node": node,
    "curl": curl,
}


def need(*commands: str) -> None:
    missing = [command for command in commands if shutil.which(command) is None]
    if missing:
        leave_out(f"a partner's program, because {missing[0]} is not installed", REMEDY)


def made(command: Sequence[str], folder: Path, **variables: str) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE * 5,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def running(program: tuple[str, Sequence[str]], api: Api, **variables: str) -> "Iterator[Callable[[str], str]]":
    """Run a program; yield a function that gives it a line and returns what it prints."""
    language, command = program
    process = subprocess.Popen(
        command,
        env={**os.environ, **api.variables, "API": api.addresses[language], **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Some tell what is deprecated, such as an IP address as the name of a server.
        stderr=subprocess.DEVNULL,
        text=True,
    )
    watch = threading.Timer(PATIENCE, process.kill)
    watch.start()

    def give(line: str) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        return process.stdout.readline()

    try:
        yield give
        output, _ = process.communicate()
        assert (process.returncode, output) == (0, "")
    finally:
        watch.cancel()
        process.kill()
        process.communicate()


def test_every_program_is_in_the_document_word_for_word() -> None:
    blocks = re.findall(r"```\w+\n(.*?)```", TEXT, re.DOTALL)

    assert {name for name in PROGRAMS.values() if (FOLDER / name).read_text(encoding="utf-8") not in blocks} == set()
    assert (FOLDER / "ledger.proto").read_text(encoding="utf-8") in blocks
    assert {path.name for path in FOLDER.iterdir()} == {*PROGRAMS, "ledger.proto"}


def test_what_partners_get_of_the_api_is_of_the_api() -> None:
    text = (FOLDER / "ledger.proto").read_text(encoding="utf-8")
    real = descriptor_pb2.FileDescriptorProto()
    ledger_pb2.DESCRIPTOR.CopyToProto(real)
    fields = {(message.name, field.name): field.number for message in real.message_type for field in message.field}

    named = [
        (message, field, int(number))
        for message, body in re.findall(r"message (\w+) \{\n(.*?)\}", text, re.DOTALL)
        for field, number in re.findall(r"\w+ (\w+) = (\d+);", body)
    ]
    assert named
    assert [each for each in named if fields.get(each[:2]) != each[2]] == []


def test_a_partner_calls_with_a_token_and_replaces_one_that_is_refused(
    program: tuple[str, Sequence[str]], api: Api
) -> None:
    with running(program, api) as give:
        first = [give("freight"), give("fuel")]
        assert first == [f"posted for {ACME}\n"] * 2
        [one] = set(api.ledger.tokens)
        api.authorizer.revoke(token_id=str(one))
        second = [give("freight"), give("fuel")]

    assert first + second == [f"posted for {ACME}\n"] * 4
    assert [token == one for token in api.ledger.tokens] == [True, True, False, False]
    assert len(set(api.ledger.tokens)) == 2


def test_a_partner_replaces_a_token_that_soon_expires(
    program: tuple[str, Sequence[str]], api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.demo.issuer.http.TOKEN_LIFETIME", 50)

    with running(program, api) as give:
        assert [give("freight"), give("fuel")] == [f"posted for {ACME}\n"] * 2

    first, second = api.ledger.tokens
    # Ours renews one of so short a life at its half, where the others do a minute ahead.
    assert (first == second) is (program[0] == "python")


def test_a_partner_whom_the_api_refuses_ends_after_a_second_try(program: tuple[str, Sequence[str]], api: Api) -> None:
    api.authorizer.revoke(client_id=api.variables["CLIENT_ID"])

    done = posted(program, api)

    assert done.returncode == 1
    assert api.ledger.tokens == []
    assert "UNAUTHENTICATED" in done.stderr.upper()


def test_a_partner_with_a_wrong_secret_ends_without_showing_it(program: tuple[str, Sequence[str]], api: Api) -> None:
    done = posted(program, api, CLIENT_SECRET="not-the-secret & more")

    assert done.returncode != 0
    assert "not-the-secret" not in done.stdout + done.stderr
    assert api.ledger.tokens == []


def posted(program: tuple[str, Sequence[str]], api: Api, **variables: str) -> "subprocess.CompletedProcess[str]":
    language, command = program
    return subprocess.run(
        command,
        input="freight\n",
        env={**os.environ, **api.variables, "API": api.addresses[language], **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_program_can_be_tried_with_the_development_issuer_and_a_server(tmp_path: Path) -> None:
    _, _, after = TEXT.partition("To try one on your machine")
    tried, _, _ = after.partition("All programs but")
    tmp_path.joinpath("examples").symlink_to(ROOT / "examples")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    assert "posted for" in tried
    assert follow(tried, tmp_path, environment({"PATH": path})) == []
