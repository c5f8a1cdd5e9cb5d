"""What published clients of gRPC-Web, Connect and gRPC make of services of connectrpc behind their interceptors."""

import json
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from connectrpc.compat import google_protobuf_codecs
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.server import ConnectASGIApplication, Endpoint
from google.protobuf.empty_pb2 import Empty

from authz import Authorizer, Verifier
from authz.call.refusal import Challenge, refusal_of
from authz.connect import interceptors
from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError
from tests.connect.servers import Server
from tests.connect.test_calls import Refusing
from tests.doubles import AUDIENCE, ISSUER, jwks, m2m_claims
from tests.programs import PATIENCE
from tests.web.site import descriptors
from tests.web.test_clients import NPM, each_error, heard, told

# connectrpc has no text form of gRPC-Web.
SERVED = {name for name in NPM if not name.startswith("grpc-web text")}


class Service:
    """Answers everything once."""

    async def unary(self, _request: Any, _ctx: Any) -> Empty:
        return Empty()

    async def server_stream(self, _request: Any, _ctx: Any) -> AsyncIterator[Empty]:
        yield Empty()

    async def client_stream(self, requests: AsyncIterator[Any], _ctx: Any) -> Empty:
        async for _ in requests:
            pass
        return Empty()

    async def bidi_stream(self, requests: AsyncIterator[Any], _ctx: Any) -> AsyncIterator[Empty]:
        async for _ in requests:
            yield Empty()


METHODS = {"Unary": "unary", "ServerStream": "server_stream", "ClientStream": "client_stream", "Bidi": "bidi_stream"}


class App(ConnectASGIApplication[Service]):
    """What protoc-gen-connectrpc generates."""

    def __init__(self, judge: Authorizer) -> None:
        super().__init__(
            service=Service(),
            endpoints=lambda service: {
                f"/tests.Guarded/{name}": getattr(Endpoint, kind)(_method(name, kind), getattr(service, kind))
                for name, kind in METHODS.items()
            },
            interceptors=interceptors(judge),
            codecs=google_protobuf_codecs(),
        )

    @property
    def path(self) -> str:
        return "/tests.Guarded"


def _method(name: str, kind: str) -> MethodInfo[Empty, Empty]:
    return MethodInfo(
        name=name,
        service_name="tests.Guarded",
        input=Empty,
        output=Empty,
        idempotency_level=IdempotencyLevel.NO_SIDE_EFFECTS if kind == "unary" else IdempotencyLevel.UNKNOWN,
        stream_type=StreamType[kind.upper()],
    )


def run(clients: Path, folder: Path, judge: Authorizer, token: str = "") -> dict[str, Any]:
    """Make one call with every client from npm, and return how each ended that connectrpc can serve."""
    (folder / "api.binpb").write_bytes(descriptors())
    with Server.HYPERCORN.serve(App(judge)) as port:
        order = {"url": f"http://127.0.0.1:{port}", "token": token, "descriptors": str(folder / "api.binpb")}
        program = ["node", str(Path(__file__).parent / "clients.mjs"), str(clients), json.dumps(order)]
        done = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    outcomes = json.loads(done.stdout)
    return {name: outcomes[name] for name in SERVED}


def verifier(key: SigningKey) -> Verifier:
    return Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(key), algorithms=["ES256"])


def test_clients_from_npm_get_through_with_a_token(npm_clients: Path, tmp_path: Path, ec_key: SigningKey) -> None:
    token = ec_key.sign(m2m_claims(time.time()))
    outcomes = run(npm_clients, tmp_path, Authorizer(verifier(ec_key)), token)

    assert {name: outcome for name, outcome in outcomes.items() if outcome != {"code": 0, "answers": 1}} == {}


@each_error
def test_clients_from_npm_are_told_why_they_are_refused(
    npm_clients: Path, tmp_path: Path, ec_key: SigningKey, error: AuthzError
) -> None:
    judge = Refusing(verifier(ec_key))
    judge.error = error
    outcomes = run(npm_clients, tmp_path, judge)

    assert {name: heard(one) for name, one in outcomes.items()} == dict.fromkeys(
        SERVED, told(refusal_of(error, Challenge()))
    )
