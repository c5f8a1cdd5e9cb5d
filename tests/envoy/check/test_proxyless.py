"""gRPC without a proxy (gRFC A92) as a client of ours: its form of the question, and its reading of the answer."""

import asyncio
from typing import Any, NamedTuple

import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from authz.demo.issuer.signing import SigningKey
from authz.envoy.check.servicer import AuthorizationServicer
from authz.envoy.v3.external_auth_pb2 import (
    AttributeContext,
    CheckRequest,
    CheckResponse,
    HeaderMap,
    HeaderValue,
)
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.policy import Policy
from tests.doubles import AUDIENCE, CLIENT, ISSUER, ORG, ManualClock, jwks, m2m_claims
from tests.envoy.check.messages import GRPC_PATH

STATUSES = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
"""gRPC's own table of HTTP statuses; every other is UNKNOWN."""

Metadata = list[tuple[str, str | bytes]]


class Result(NamedTuple):
    """What the client makes of an answer: the metadata of the call, or a status with trailers."""

    code: int
    metadata: Metadata


def question(metadata: Metadata, path: str = GRPC_PATH) -> bytes:
    """Return what such a client sends: raw headers, a size of -1, and of Envoy's other facts none."""
    values = [HeaderValue(key=k, raw_value=v.encode() if isinstance(v, str) else v) for k, v in metadata]
    http = AttributeContext.HttpRequest(
        method="POST", path=path, size=-1, protocol="HTTP/2", header_map=HeaderMap(headers=values)
    )
    request = AttributeContext.Request(http=http)
    request.time.GetCurrentTime()
    return CheckRequest(attributes=AttributeContext(request=request)).SerializeToString()


def applied(metadata: Metadata, body: bytes) -> Result:
    """Read an answer as the proposal says, and refuse whatever it lets a client refuse."""
    response = CheckResponse.FromString(body)
    if response.status.code:
        assert response.HasField("denied_response")
        code = STATUSES.get(response.denied_response.status.code, 2)
        return Result(code, [_entry(option.header) for option in response.denied_response.headers])
    assert response.HasField("ok_response")
    kept = list(metadata)
    for option in response.ok_response.headers:
        key, value = _entry(option.header)
        # A client may forbid these, and fail the call.
        assert not key.startswith(("grpc-", "x-envoy-"))
        assert option.append_action == 2
        kept = [*(each for each in kept if each[0] != key), (key, value)]
    removed = response.ok_response.headers_to_remove
    assert not [name for name in removed if name.startswith(":") or name == "host"]
    return Result(0, [each for each in kept if each[0] not in removed])


def _entry(header: HeaderValue) -> tuple[str, str | bytes]:
    assert header.key == header.key.lower()
    assert header.key != "host"
    assert not header.key.startswith(":")
    value: str | bytes = header.raw_value if header.key.endswith("-bin") else header.value
    assert 0 < len(value) <= 16384
    return header.key, value


class Server:
    def __init__(self, key: SigningKey, **options: Any) -> None:
        clock = ManualClock().clock
        verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(key), algorithms=["ES256"], clock=clock)
        deny = {"name": "p", "deny_rules": [{"name": "d", "request": {"paths": ["/a.S/Denied"]}}]}
        policy = Policy.from_document({**deny, "allow_rules": [{"name": "others"}]})
        self._servicer = AuthorizationServicer(Authorizer(verifier, policy=policy), **options)
        self.token = ("authorization", f"Bearer {key.sign(m2m_claims())}")

    def ask(self, *metadata: tuple[str, str | bytes], path: str = GRPC_PATH) -> Result:
        return applied(list(metadata), asyncio.run(self._servicer.check(question(list(metadata), path), None)))


@pytest.fixture(scope="module", params=[False, True], ids=["", "end-streams"])
def server(request: pytest.FixtureRequest, ec_key: SigningKey) -> Server:
    return Server(ec_key, end_streams=request.param)


def test_good_call_goes_on_with_its_caller_and_no_other(server: Server) -> None:
    forged: Metadata = [("x-org-id", "org_FORGED"), ("x-org-id", "org_F2"), ("x-authz-principal-bin", b"forged")]
    result = server.ask(server.token, ("content-type", "application/grpc"), ("te", "trailers"), *forged)

    found = {key: [value for each, value in result.metadata if each == key] for key, _ in result.metadata}
    assert (result.code, found["x-org-id"], found["x-client-id"]) == (0, [ORG], [CLIENT])
    assert found["te"] == ["trailers"]
    assert isinstance(found["x-authz-principal-bin"][0], bytes)
    assert found["x-authz-principal-bin"] != [b"forged"]


@pytest.mark.parametrize(
    ("is_known", "path", "code", "reason"),
    [(False, GRPC_PATH, 16, "TOKEN_MISSING"), (True, "/a.S/Denied", 7, "POLICY_DENIED")],
    ids=["unauthenticated", "denied"],
)
def test_refusal_says_in_trailers_why(server: Server, *, is_known: bool, path: str, code: int, reason: str) -> None:
    token = [server.token] if is_known else []
    result = server.ask(*token, ("content-type", "application/grpc"), path=path)

    assert result.code == code
    # The body is ignored, so the details must say it.
    details = dict(result.metadata)["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    info = ErrorInfo()
    [packed] = Status.FromString(details).details
    packed.Unpack(info)
    assert info.reason == reason


def test_second_token_is_refused(server: Server) -> None:
    assert server.ask(server.token, server.token, ("content-type", "application/grpc")).code == 16
