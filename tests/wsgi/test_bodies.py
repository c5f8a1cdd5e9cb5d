"""Which organization the message in a body names: checked, and then left for the handler to read."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from authz.demo.v1 import ledger_pb2 as pb
from authz.http.isolation import RequestIsolation
from authz.http.messages import MAX_BODY_BYTES
from authz.wsgi import AuthzMiddleware
from tests.asgi.conftest import NewJudge, Token
from tests.doubles import ORG
from tests.http.client import Connection, Headers, Reply, ask, bearer
from tests.marked import descriptor_set
from tests.wsgi.conftest import Serve
from tests.wsgi.test_middleware import environ_of

OTHER = "org_01JYGLOBEX0000000000000000"
POST = "/authz.demo.v1.LedgerService/PostEntry"
GRPC = ("content-type", "application/grpc+proto")


def naming(org_id: str, memo: str = "") -> bytes:
    """Return a body with one gRPC message that names an organization."""
    message = pb.PostEntryRequest(draft=pb.EntryDraft(memo=memo, org_id=org_id)).SerializeToString()
    return b"\0" + len(message).to_bytes(4) + message


def reading(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer with the body of the request, as far as its length is told."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@pytest.fixture
def isolation(tmp_path: Path) -> RequestIsolation:
    path = tmp_path / "api.binpb"
    path.write_bytes(descriptor_set(pb.DESCRIPTOR))
    return RequestIsolation(path)


@pytest.fixture
def middleware(new_judge: NewJudge, isolation: RequestIsolation) -> AuthzMiddleware:
    return AuthzMiddleware(reading, new_judge(), isolation=isolation)


def chunked(port: int, headers: Headers, body: bytes) -> Reply:
    with Connection(port) as connection:
        head = [f"POST {POST} HTTP/1.1", "host: localhost", "transfer-encoding: chunked", "connection: close"]
        lines = [*head, *[f"{name}: {value}" for name, value in headers], "", ""]
        framed = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        connection.socket.sendall("\r\n".join(lines).encode() + framed)
        return connection.reply()


def reason(reply: Reply) -> str:
    """Return why a call of gRPC is refused."""
    return reply.values("grpc-status-details-bin")[0] and reply.values("grpc-message")[0]


def test_handler_reads_the_message_that_was_checked(
    serve: Serve, server: str, middleware: AuthzMiddleware, token: Token
) -> None:
    port, headers = serve(middleware, server), [GRPC, *bearer(token())]

    own = ask(port, POST, headers, verb="POST", body=naming(ORG))
    foreign = ask(port, POST, headers, verb="POST", body=naming(OTHER))

    assert own.body == naming(ORG)
    assert reason(foreign) == "Permission denied"


@pytest.mark.parametrize("server", ["gunicorn", "gunicorn-threads", "waitress", "werkzeug"])
def test_message_in_chunks_is_checked_as_well(
    serve: Serve, server: str, middleware: AuthzMiddleware, token: Token
) -> None:
    port, headers = serve(middleware, server), [GRPC, *bearer(token())]

    assert chunked(port, headers, naming(ORG)).body == naming(ORG)
    assert reason(chunked(port, headers, naming(OTHER))) == "Permission denied"


def test_body_of_another_method_is_not_read(
    serve: Serve, server: str, middleware: AuthzMiddleware, token: Token
) -> None:
    reply = ask(serve(middleware, server), "/upload", bearer(token()), verb="POST", body=b"a" * (MAX_BODY_BYTES + 1))

    assert len(reply.body) == MAX_BODY_BYTES + 1


def outcome(middleware: AuthzMiddleware, token: str, stream: Any, **variables: Any) -> tuple[str, bytes]:
    """Return status and body of the answer to a request with this stream, as PEP 3333 describes one."""
    environ = environ_of(POST, token, CONTENT_TYPE=GRPC[1], REQUEST_METHOD="POST", **variables)
    seen: list[str] = []
    body = middleware({**environ, "wsgi.input": stream}, lambda *start: seen.append(_status(*start)))  # type: ignore[arg-type,return-value]
    return seen[0], b"".join(body)


def _status(status: str, headers: list[tuple[str, str]]) -> str:
    return dict(headers).get("grpc-message", status)


class Slow(io.BytesIO):
    """A stream that has no more than a byte at a time."""

    def read(self, _size: int | None = -1) -> bytes:
        return super().read(1)


class Broken(io.BytesIO):
    """The stream of a client that has gone."""

    def read(self, _size: int | None = -1) -> bytes:
        raise ConnectionResetError


LENGTH = str(len(naming(ORG)))


@pytest.mark.parametrize(
    ("stream", "variables"),
    [
        (io.BytesIO(naming(ORG) + b"GET /next"), {"CONTENT_LENGTH": LENGTH}),
        (Slow(naming(ORG)), {"CONTENT_LENGTH": LENGTH}),
        (Slow(naming(ORG)), {"wsgi.input_terminated": True}),
        (io.BytesIO(naming(ORG)), {"wsgi.input_terminated": True, "CONTENT_LENGTH": LENGTH}),
    ],
    ids=["the next request follows", "slow", "slow without a length", "with a length and an end"],
)
def test_whole_message_is_read_however_it_comes(
    middleware: AuthzMiddleware, token: Token, stream: Any, variables: dict[str, Any]
) -> None:
    assert outcome(middleware, token(), stream, **variables) == ("200 OK", naming(ORG))


@pytest.mark.parametrize(
    ("stream", "variables"),
    [
        (io.BytesIO(naming(ORG)), {"CONTENT_LENGTH": str(len(naming(ORG)) + 1)}),
        (io.BytesIO(naming(ORG)), {"CONTENT_LENGTH": "-1"}),
        (io.BytesIO(naming(ORG)), {"CONTENT_LENGTH": "1e9"}),
        (io.BytesIO(naming(ORG)), {"CONTENT_LENGTH": "\u00b2"}),
        (io.BytesIO(naming(ORG, "a" * MAX_BODY_BYTES)), {"CONTENT_LENGTH": str(MAX_BODY_BYTES + 100)}),
        (io.BytesIO(naming(ORG, "a" * MAX_BODY_BYTES)), {"wsgi.input_terminated": True}),
        (Broken(), {"CONTENT_LENGTH": LENGTH}),
        (Broken(), {"wsgi.input_terminated": True}),
    ],
    ids=["short", "negative", "no number", "another digit", "long", "long in chunks", "gone", "gone in chunks"],
)
def test_message_that_cannot_be_checked_is_refused(
    middleware: AuthzMiddleware, token: Token, stream: Any, variables: dict[str, Any]
) -> None:
    assert outcome(middleware, token(), stream, **variables)[0] == "Permission denied"


def test_body_whose_end_is_not_known_is_not_read_by_the_handler_either(
    middleware: AuthzMiddleware, token: Token
) -> None:
    """Such as one in chunks behind a server that hands on what the client sends."""
    assert outcome(middleware, token(), io.BytesIO(naming(OTHER))) == ("200 OK", b"")
