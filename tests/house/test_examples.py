"""The examples run as they are, and do what they say."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx2
import pytest

from authz import ClientCredentials, Principal, TrustedMetadata
from authz.demo.issuer.program import IssuerServer
from authz.demo.v1 import ledger_pb2, ledger_pb2_grpc
from interceptors import bearer_interceptors
from tests.certificates import Authority, uris
from tests.doubles import eventually
from tests.testing.suites import run_pytest

FOLDER = Path(__file__).parents[2] / "examples"
MAX_LINES = 60
PATIENCE = 120.0

ACME, GLOBEX = "org_01JYACME000000000000000001", "org_01JYG10BEX0000000000000001"


@pytest.fixture(scope="module")
def issuer() -> Iterator[IssuerServer]:
    with IssuerServer() as server:
        yield server


@pytest.fixture
def target() -> Iterator[str]:
    """Return an address that nobody else gets before the example has it."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{reserved.getsockname()[1]}"


@contextmanager
def running(
    example: str, target: str, environment: Mapping[str, str], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, FOLDER / example]
    with subprocess.Popen(command, cwd=folder, env={**os.environ, "LISTEN": target, **environment}) as program:
        try:
            yield program
        finally:
            program.terminate()


def ready(channel: grpc.Channel) -> grpc.Channel:
    grpc.channel_ready_future(channel).result(timeout=PATIENCE)
    return channel


def source(issuer: IssuerServer, number: int = 0, scope: str | None = None) -> ClientCredentials:
    application = issuer.issuer.directory.applications[number]
    credentials = {"client_id": application.client_id, "client_secret": application.client_secret}
    return ClientCredentials(issuer.url, **credentials, scope=scope)


def test_the_tests_of_the_ledger_pass(tmp_path: Path) -> None:
    for name in ("sync_server.py", "test_ledger.py"):
        (tmp_path / name).write_text((FOLDER / name).read_text(encoding="utf-8"), encoding="utf-8")

    report = run_pytest(tmp_path)

    assert (report.status, report.count, report.failed) == (0, 5, set()), report.text


def post(channel: grpc.Channel, **options: object) -> str:
    request = ledger_pb2.PostEntryRequest(draft=ledger_pb2.EntryDraft(account="a"))
    return ledger_pb2_grpc.LedgerServiceStub(channel).PostEntry(request, timeout=PATIENCE, **options).entry.org_id


@pytest.mark.parametrize("example", sorted(path.name for path in FOLDER.glob("*.py")))
def test_an_example_is_short(example: str) -> None:
    assert len((FOLDER / example).read_text(encoding="utf-8").splitlines()) < MAX_LINES


@pytest.mark.parametrize("server", ["sync_server.py", "aio_server.py"])
def test_the_client_posts_for_its_organization(server: str, issuer: IssuerServer, target: str, tmp_path: Path) -> None:
    environment = {"AUTHZ_ISSUER": issuer.url}
    with running(server, target, environment, tmp_path), grpc.insecure_channel(target) as channel:
        ready(channel)
        client = subprocess.run(
            [sys.executable, FOLDER / "client.py"],
            env={**os.environ, "TARGET": target, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    assert (client.stdout.strip(), client.stderr) == (f"posted for {ACME}", "")


def test_an_organization_sees_its_entries_and_no_others(issuer: IssuerServer, target: str, tmp_path: Path) -> None:
    with (
        running("sync_server.py", target, {"AUTHZ_ISSUER": issuer.url}, tmp_path),
        ready(grpc.insecure_channel(target)) as channel,
    ):
        channels = [
            grpc.intercept_channel(channel, *bearer_interceptors(source(issuer, number), insecure_channel=True))
            for number in (0, 1)
        ]
        for one in channels:
            post(one)
        seen = [
            {reply.entry.org_id for reply in ledger.ListEntries(ledger_pb2.ListEntriesRequest())}
            for ledger in map(ledger_pb2_grpc.LedgerServiceStub, channels)
        ]

    assert seen == [{ACME}, {GLOBEX}]


def test_an_organization_that_is_cut_off_loses_its_open_stream(
    issuer: IssuerServer, target: str, tmp_path: Path
) -> None:
    over = threading.Event()

    def lines() -> Iterator[ledger_pb2.ReconcileEntriesRequest]:
        yield ledger_pb2.ReconcileEntriesRequest(line=ledger_pb2.EntryDraft(account="a"))
        over.wait(PATIENCE)

    with (
        running("aio_server.py", target, {"AUTHZ_ISSUER": issuer.url, "CUT_OFF": ACME}, tmp_path) as server,
        ready(grpc.insecure_channel(target)) as channel,
    ):
        token = (("authorization", f"Bearer {source(issuer).token()}"),)
        call = ledger_pb2_grpc.LedgerServiceStub(channel).ReconcileEntries(lines(), metadata=token, timeout=PATIENCE)
        first = next(call)
        server.send_signal(signal.SIGUSR1)
        with pytest.raises(grpc.RpcError):
            next(call)
        over.set()

    assert (first.entry.org_id, call.code()) == (ACME, grpc.StatusCode.UNAUTHENTICATED)


def test_decisions_are_figures_and_lines_of_a_log(issuer: IssuerServer, target: str, tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        metrics = f"127.0.0.1:{reserved.getsockname()[1]}"
    log = tmp_path / "decisions.jsonl"
    environment = {"AUTHZ_ISSUER": issuer.url, "METRICS": metrics, "DECISIONS": str(log)}

    with (
        running("observed_server.py", target, environment, tmp_path),
        ready(grpc.insecure_channel(target)) as channel,
    ):
        outcomes = [outcome(channel, ()), outcome(channel, (("authorization", f"Bearer {source(issuer).token()}"),))]
        figures = httpx2.get(f"http://{metrics}/metrics", timeout=PATIENCE, trust_env=False).text
        assert eventually(lambda: "token_missing" in log.read_text(encoding="utf-8"))

    assert outcomes == ["UNAUTHENTICATED", ACME]
    assert 'authz_checks_total{reason="",verdict="allowed"} 1.0' in figures
    assert 'authz_checks_total{reason="token_missing",verdict="denied"} 1.0' in figures


def test_a_caller_has_the_scopes_that_the_proto_asks_for_or_is_refused(
    issuer: IssuerServer, target: str, tmp_path: Path
) -> None:
    application = issuer.issuer.directory.applications[0]
    asking = {"CLIENT_ID": application.client_id, "CLIENT_SECRET": application.client_secret}
    tokens = {scope: source(issuer, scope=scope).token() for scope in ("ledger:read", "ledger:write")}

    with (
        running("policy_in_proto.py", target, {"AUTHZ_ISSUER": issuer.url, **asking}, tmp_path),
        ready(grpc.insecure_channel(target)) as channel,
    ):
        outcomes = {scope: outcome(channel, (("authorization", f"Bearer {token}"),)) for scope, token in tokens.items()}
        program, shown = refused_in_the_guide()
        program = program.replace("http://127.0.0.1:9190", issuer.url).replace("127.0.0.1:50051", target)
        client = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
        )

    assert outcomes == {"ledger:read": "PERMISSION_DENIED", "ledger:write": ACME}
    assert (client.stdout, client.stderr) == (shown, "")


def refused_in_the_guide() -> tuple[str, str]:
    """Return the program in docs/policy.md that is refused, and what it prints there."""
    text = (FOLDER.parent / "docs/policy.md").read_text(encoding="utf-8")
    program = re.search(r"```python\n(# refused\.py\n.*?)```", text, re.DOTALL)
    printed = re.search(r"\$ python refused\.py\n(.*?)```", text, re.DOTALL)
    assert program is not None
    assert printed is not None
    return program[1], printed[1]


SAID = Principal(org_id=GLOBEX, client_id="client_1", subject="client_1", expires_at=4e9)


def test_a_backend_in_a_mesh_believes_its_socket_and_its_proxy_only(
    issuer: IssuerServer, target: str, tmp_path: Path
) -> None:
    authority = Authority()
    server, proxy, other = (
        authority.issue_for_loopback(),
        authority.issue(*uris("spiffe://cluster.local/ns/edge/sa/gateway")),
        authority.issue(*uris("spiffe://cluster.local/ns/edge/sa/other")),
    )
    for name, content in (("tls.crt", server.chain), ("tls.key", server.key), ("ca.crt", authority.root)):
        (tmp_path / name).write_bytes(content)
    environment = {"AUTHZ_ISSUER": issuer.url, "CERTIFICATES": str(tmp_path), "SOCKET": "ledger.sock"}
    said = tuple(TrustedMetadata().entries(SAID))

    with running("mesh_backend.py", target, environment, tmp_path):
        by_certificate = {}
        for name, certificate in (("proxy", proxy), ("other", other)):
            credentials = grpc.ssl_channel_credentials(authority.root, certificate.key, certificate.chain)
            with ready(grpc.secure_channel(target, credentials)) as channel:
                by_certificate[name] = outcome(channel, said)
        with ready(grpc.insecure_channel(f"unix:{tmp_path}/ledger.sock")) as channel:
            by_socket = outcome(channel, said)

    assert by_certificate == {"proxy": GLOBEX, "other": "UNAUTHENTICATED"}
    assert by_socket == GLOBEX


def outcome(channel: grpc.Channel, metadata: tuple[tuple[str, str | bytes], ...]) -> str:
    try:
        return post(channel, metadata=metadata)
    except grpc.RpcError as error:
        return str(error.code().name)
