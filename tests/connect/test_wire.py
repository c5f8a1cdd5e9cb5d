"""Refusals are written as at the other doors: the same bytes for gRPC, and what clients of others make of them."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.rpc.status_pb2 import Status

from authz import Verifier
from authz.call.refusal import Challenge, Refusal, refusal_of
from authz.errors import AuthzError
from authz.http.forms import Form, answer
from tests.connect.conftest import Serve, Site
from tests.connect.messages import GOOGLE
from tests.connect.servers import Server
from tests.connect.service import KINDS, SERVICE
from tests.connect.test_calls import ERRORS, Refusing
from tests.connect.test_streams import ORDERS, Waiting, each_order
from tests.connect.wire import post
from tests.doubles import ORG, PATIENCE, eventually

ORDER = GOOGLE.types["Order"]
_HELLO = (ORDER(note="hello"),)
GRPC_KINDS = {
    "unary": "unary_unary",
    "server_stream": "unary_stream",
    "client_stream": "stream_unary",
    "bidi_stream": "stream_stream",
}
each_error = pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)


class Grpc:
    """A client of grpcio."""

    def __init__(self, site: Site) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{site.port}", [("grpc.use_local_subchannel_pool", 1)])

    def begin(self, kind: str, metadata: Any = (), requests: Any = _HELLO) -> Any:
        stub = getattr(self.channel, GRPC_KINDS[kind])(
            f"/{SERVICE}/{kind}", request_serializer=ORDER.SerializeToString, response_deserializer=ORDER.FromString
        )
        is_stream = kind in {"client_stream", "bidi_stream"}
        begin = stub.future if GRPC_KINDS[kind].endswith("unary") else stub
        return begin(iter(requests) if is_stream else requests[0], metadata=metadata, timeout=60)


@pytest.fixture
def dial() -> Iterator[Callable[[Site], Grpc]]:
    """Return a function that makes a client."""
    clients: list[Grpc] = []

    def begin(site: Site) -> Grpc:
        clients.append(Grpc(site))
        return clients[-1]

    yield begin
    for each in clients:
        each.channel.close()


def notes(kind: str, call: Any) -> list[str]:
    return [one.note for one in ([call.result()] if GRPC_KINDS[kind].endswith("unary") else call)]


@pytest.mark.parametrize("kind", KINDS)
def test_grpcio_gets_through_with_a_token(serve: Serve, dial: Callable[[Site], Grpc], kind: str, token: str) -> None:
    site = serve(Server.HYPERCORN)
    call = dial(site).begin(kind, [("authorization", f"Bearer {token}"), ("x-org-id", "forged")])

    assert set(notes(kind, call)) == {ORG}
    assert site.witness.sight.values("x-org-id") == [ORG]


@each_error
@pytest.mark.parametrize("kind", KINDS)
def test_grpcio_is_told_the_same_as_by_a_grpc_server(
    serve: Serve, dial: Callable[[Site], Grpc], kind: str, error: AuthzError, verifier: Verifier
) -> None:
    judge = Refusing(verifier)
    judge.error = error
    refusal = refusal_of(error, Challenge())
    call = dial(serve(Server.HYPERCORN, judge=judge)).begin(kind)

    with pytest.raises(grpc.RpcError):
        notes(kind, call)
    trailers = dict(call.trailing_metadata())
    assert (call.code().name, call.details()) == (refusal.code.name, refusal.message)
    assert trailers == {entry.key: entry.value for entry in refusal.trailers}
    assert "www-authenticate" not in dict(call.initial_metadata())


@each_order
@pytest.mark.parametrize("kind", ["server_stream", "bidi_stream"])
def test_grpcio_is_told_why_its_stream_ends(
    serve: Serve, dial: Callable[[Site], Grpc], kind: str, order: str, token: str
) -> None:
    site = serve(Server.HYPERCORN, handlers=Waiting)
    requests = _Endless()
    call = dial(site).begin(kind, [("authorization", f"Bearer {token}")], requests=requests)
    assert next(call).note == ORG
    act, code, reason = ORDERS[order]
    act(site.authorizer)

    with pytest.raises(grpc.RpcError):
        next(call)
    requests.over.set()
    [info] = Status.FromString(dict(call.trailing_metadata())["grpc-status-details-bin"]).details
    assert (call.code().name, reason.encode() in info.value) == (code.upper(), True)
    assert "www-authenticate" in dict(call.trailing_metadata())
    assert eventually(lambda: len(site.authorizer.streams) == 0)


class _Endless:
    """The requests of a client that does not come to an end."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        yield ORDER()
        self.over.wait(PATIENCE)

    def __getitem__(self, _index: int) -> Any:
        return ORDER()


# ---- Byte by byte ----


def refusing(serve: Serve, server: Server, verifier: Verifier, error: AuthzError) -> tuple[Site, Refusal]:
    judge = Refusing(verifier)
    judge.error = error
    return serve(server, judge=judge), refusal_of(error, Challenge())


BOTH = pytest.mark.parametrize("server", [Server.UVICORN, Server.WAITRESS], ids=lambda it: it.name)


@BOTH
@each_error
def test_a_unary_call_of_connect_is_answered_as_by_the_other_doors(
    serve: Serve, server: Server, error: AuthzError, verifier: Verifier
) -> None:
    site, refusal = refusing(serve, server, verifier, error)
    status, body = post(site.port, f"/{SERVICE}/unary", [("content-type", "application/json")], b"{}")
    expected = json.loads(answer(refusal, Form.HTTP).body)
    del expected["error"]

    assert (status, json.loads(body)) == (refusal.http_status, expected)


@BOTH
@each_error
@pytest.mark.parametrize("form", [Form.CONNECT_PROTO, Form.CONNECT_JSON])
def test_a_stream_of_connect_is_answered_as_by_the_other_doors(
    serve: Serve, server: Server, error: AuthzError, form: Form, verifier: Verifier
) -> None:
    site, refusal = refusing(serve, server, verifier, error)
    kind = "application/connect+" + ("json" if form is Form.CONNECT_JSON else "proto")
    status, body = post(site.port, f"/{SERVICE}/server_stream", [("content-type", kind)], bytes(5))
    expected = answer(refusal, form)

    assert (status, body[0]) == (expected.status, 2)
    assert json.loads(body[5:]) == json.loads(expected.body[5:])


@BOTH
@each_error
@pytest.mark.parametrize("kind", KINDS)
def test_grpc_web_is_told_the_same_in_its_trailers(
    serve: Serve, server: Server, kind: str, error: AuthzError, verifier: Verifier
) -> None:
    site, refusal = refusing(serve, server, verifier, error)
    headers = [("content-type", "application/grpc-web+proto")]
    status, body = post(site.port, f"/{SERVICE}/{kind}", headers, bytes(5))
    trailers = dict(line.split(": ", 1) for line in body[5:].decode().split("\r\n") if line)
    expected = {entry.key: entry.value for entry in refusal.trailers if entry.key != "grpc-status-details-bin"}

    assert (status, body[0]) == (200, 0x80)
    assert {name: trailers[name] for name in expected} == expected
    assert trailers["grpc-status"] == str(refusal.code.value)
