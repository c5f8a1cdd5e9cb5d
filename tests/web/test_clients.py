"""What published clients of gRPC-Web, Connect and gRPC make of each answer, behind the Envoy that we print."""

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from connectrpc.client import ConnectClientSync
from connectrpc.codec import proto_json_codec
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.protocol import ProtocolType
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from protobuf.wkt import Empty

from authz.call.refusal import Challenge, Refusal, refusal_of
from authz.errors import (
    AuthzError,
    InternalError,
    KeySetUnavailableError,
    PermissionDeniedError,
    ResourceExhaustedError,
    TokenExpiredError,
)
from tests.programs import PATIENCE
from tests.web.site import Site, descriptors

ERRORS = {
    "401": TokenExpiredError(),
    "403": PermissionDeniedError(),
    "429": ResourceExhaustedError(),
    "503": KeySetUnavailableError(retry_after=7),
    "500": InternalError(),
}
each_error = pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)

KINDS = ("unary", "server stream", "client stream", "bidi")
OF_CONNECT = ("connect proto", "connect json", "grpc", "grpc-web of connect")
NPM = {
    *(f"{client} {kind}" for client in OF_CONNECT for kind in KINDS),
    "connect get",
    *("grpc-web binary unary", "grpc-web text unary", "grpc-web text server stream"),
}


@pytest.fixture
def run(npm_clients: Path, site: Site, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that makes one call with every client from npm, and returns how each ended."""
    (tmp_path / "api.binpb").write_bytes(descriptors())

    def run(token: str = "") -> dict[str, Any]:
        order = {"url": f"http://{site.target}", "token": token, "descriptors": str(tmp_path / "api.binpb")}
        program = ["node", str(Path(__file__).parent / "clients.mjs"), str(npm_clients), json.dumps(order)]
        done = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        outcomes: dict[str, Any] = json.loads(done.stdout)
        assert outcomes.keys() == NPM
        return outcomes

    return run


def told(refusal: Refusal) -> dict[str, Any]:
    """Return what a caller is to be told."""
    headers = {entry.key: entry.value for entry in refusal.headers}
    return {
        "code": refusal.code.value,
        "message": refusal.message,
        "retry": headers.get("retry-after"),
        "challenge": headers.get("www-authenticate"),
        "details": [(detail.type_url.rpartition("/")[2], detail.value) for detail in _details(refusal.details)],
    }


def heard(outcome: dict[str, Any]) -> dict[str, Any]:
    """Return what a client from npm was told, in the same words."""
    if "status" in outcome:
        text = outcome["status"] + "=" * (-len(outcome["status"]) % 4)
        details = [(each.type_url.rpartition("/")[2], each.value) for each in _details(base64.b64decode(text))]
    else:
        details = [(kind, base64.b64decode(value)) for kind, value in outcome.get("details", ())]
    return {name: outcome[name] for name in ("code", "message", "retry", "challenge")} | {"details": details}


def _details(status: bytes) -> Any:
    return Status.FromString(status).details


def test_clients_from_npm_get_through_with_a_token(run: Callable[..., dict[str, Any]], site: Site, token: str) -> None:
    outcomes = run(token)

    assert {name: outcome for name, outcome in outcomes.items() if outcome != {"code": 0, "answers": 1}} == {}
    assert len(site.seen) == len(NPM)


@each_error
def test_clients_from_npm_are_told_why_they_are_refused(
    run: Callable[..., dict[str, Any]], site: Site, error: AuthzError
) -> None:
    site.judge.error = error
    expected = told(refusal_of(error, Challenge()))

    assert {name: heard(outcome) for name, outcome in run().items()} == dict.fromkeys(NPM, expected)
    assert site.seen == []


# ---- connectrpc, from PyPI ----

PYTHON: dict[str, dict[str, Any]] = {
    "connect-proto": {},
    "connect-json": {"codec": proto_json_codec()},
    "grpc-web": {"protocol": ProtocolType.GRPC_WEB},
}


@pytest.fixture(params=PYTHON)
def client(request: pytest.FixtureRequest, site: Site) -> Iterator[ConnectClientSync]:
    with ConnectClientSync(f"http://{site.target}", **PYTHON[request.param]) as client:
        yield client


def method(name: str, kind: StreamType) -> MethodInfo[Empty, Empty]:
    return MethodInfo(
        name=name,
        service_name="tests.Guarded",
        input=Empty,
        output=Empty,
        idempotency_level=IdempotencyLevel.NO_SIDE_EFFECTS,
        stream_type=kind,
    )


UNARY = method("Unary", StreamType.UNARY)
SERVER_STREAM = method("ServerStream", StreamType.SERVER_STREAM)
CLIENT_STREAM = method("ClientStream", StreamType.CLIENT_STREAM)
CALLS: dict[str, Callable[..., Any]] = {
    "unary": lambda client, **more: client.execute_unary(request=Empty(), method=UNARY, **more),
    "get": lambda client, **more: client.execute_unary(request=Empty(), method=UNARY, use_get=True, **more),
    "server-stream": lambda client, **more: list(
        client.execute_server_stream(request=Empty(), method=SERVER_STREAM, **more)
    ),
    "client-stream": lambda client, **more: client.execute_client_stream(
        request=iter([Empty()]), method=CLIENT_STREAM, **more
    ),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@each_call
def test_client_from_pypi_gets_through_with_a_token(
    client: ConnectClientSync, call: Callable[..., Any], site: Site, token: str
) -> None:
    assert call(client, headers={"authorization": f"Bearer {token}"}) in (Empty(), [Empty()])
    assert len(site.seen) == 1


@each_error
@each_call
def test_client_from_pypi_is_told_why_it_is_refused(
    client: ConnectClientSync, call: Callable[..., Any], site: Site, error: AuthzError
) -> None:
    site.judge.error = error
    refusal = refusal_of(error, Challenge())

    with pytest.raises(ConnectError) as refused:
        call(client)
    info = ErrorInfo.FromString(refused.value.details[0].message_bytes)

    assert refused.value.code.name == refusal.code.name
    assert (refused.value.message, info.reason) == (refusal.message, error.reason.upper())
    assert site.seen == []
