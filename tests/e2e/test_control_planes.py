"""What Istio and Envoy Gateway make of our resources decides as our own bootstrap does, in a real Envoy."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from authz.demo.issuer.signing import SigningKey
from authz.demo.processes import Envoy
from authz.envoy.config.formats import Ingress, bootstrap
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.policy import Policy
from tests.doubles import AUDIENCE, CLIENT, ISSUER, ORG, PATIENCE, jwks, m2m_claims
from tests.e2e import control_planes, http1
from tests.e2e.endless import DOWN, Endless, endless_grpc, endless_web
from tests.e2e.http1 import bearer
from tests.e2e.mesh import Seen, grpc_echo, http_echo, serve_here
from tests.interceptors.servers import channel_to

CALL, DENIED, PUBLIC = "/tests.Guarded/Call", "/tests.Guarded/Denied", "/tests.Public/Call"
SUSPENDED = "org_01JYSUSPENDED00000000000000"
FORGED = [("x-org-id", "org_01JYFORGED"), ("x-org-id", "org_01JYFORGED"), ("x-scopes", "admin"), ("x-org-tenant", "t")]
POLICY: dict[str, Any] = {
    "name": "planes",
    "deny_rules": [{"name": "denied", "request": {"paths": [DENIED, "/denied"]}}],
    "allow_rules": [{"name": "others"}],
    "public": [PUBLIC],
    "organizations": {SUSPENDED: {"status": "suspended"}},
}


def ours(authz: str, grpc_upstream: str, http_upstream: str) -> dict[str, Any]:
    ingress = Ingress(
        authz=[authz],
        listen="127.0.0.1:0",
        admin="127.0.0.1:0",
        upstream=grpc_upstream,
        http_upstream=http_upstream,
    )
    return bootstrap(ingress).data


MAKERS: dict[str, Callable[[str, str, str], dict[str, Any]]] = {
    "ours": ours,
    "istio": control_planes.istio_gateway,
    "envoy-gateway": control_planes.gateway,
}


class Plane(NamedTuple):
    """One Envoy.

    Attributes:
        target: ``HOST:PORT``.
        channel: to it.
        broken: the same, of an Envoy whose server does not answer.
        sign: signs a token.

    """

    name: str
    target: str
    channel: grpc.Channel
    broken: grpc.Channel
    sign: Callable[..., str]

    def grpc(self, method: str, *metadata: tuple[str, str], channel: grpc.Channel | None = None) -> str | Seen:
        """Return the status of a call, or what the upstream saw of it."""
        call = (channel or self.channel).unary_unary(method)
        try:
            return Seen.of(call(b"", metadata=metadata, timeout=PATIENCE))
        except grpc.RpcError as error:
            return str(error.code().name)


@pytest.fixture(scope="module", params=MAKERS)
def plane(
    request: pytest.FixtureRequest, ec_key: SigningKey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Plane]:
    folder: Path = tmp_path_factory.mktemp("plane")
    verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(ec_key), algorithms=["ES256"])
    judge = Authorizer(verifier, policy=Policy.from_document(POLICY))
    with contextlib.ExitStack() as running:
        address = f"unix:{folder}/authz.sock"
        running.enter_context(serve_here(judge, address, end_streams=True))
        upstreams = running.enter_context(grpc_echo()), running.enter_context(http_echo())
        targets = []
        for name, server in (("good", address), ("broken", f"unix:{folder}/nowhere.sock")):
            (folder / name).mkdir()
            envoy = Envoy(MAKERS[request.param](server, *upstreams), folder / name)
            running.callback(envoy.stop)
            targets.append(envoy.addresses()["ingress"])
        channels = [running.enter_context(channel_to(target)) for target in targets]
        yield Plane(
            request.param, targets[0], *channels, lambda **changes: ec_key.sign(m2m_claims(time.time(), **changes))
        )


def test_good_call_reaches_the_upstream_with_its_caller_and_no_other(plane: Plane) -> None:
    seen = plane.grpc(CALL, bearer(plane.sign()), *FORGED)

    assert isinstance(seen, Seen)
    assert (seen.values("x-org-id"), seen.values("x-client-id")) == ([ORG], [CLIENT])
    assert seen.values("x-scopes") == ["ledger:read ledger:write"]
    assert seen.values("x-org-tenant") == []


@pytest.mark.parametrize(
    ("method", "changes", "status"),
    [
        (CALL, None, "UNAUTHENTICATED"),
        (CALL, {"iss": "https://other.example"}, "UNAUTHENTICATED"),
        (CALL, {"iat": 1, "exp": 2}, "UNAUTHENTICATED"),
        (CALL, {"org_id": SUSPENDED}, "PERMISSION_DENIED"),
        (DENIED, {}, "PERMISSION_DENIED"),
    ],
    ids=["missing", "issuer", "expired", "suspended", "policy"],
)
def test_call_is_refused_with_the_same_status(
    plane: Plane, method: str, changes: dict[str, Any] | None, status: str
) -> None:
    credentials = [] if changes is None else [bearer(plane.sign(**changes))]

    assert plane.grpc(method, *credentials, *FORGED) == status


def test_public_method_needs_no_token_and_has_no_caller(plane: Plane) -> None:
    seen = plane.grpc(PUBLIC, *FORGED)

    assert isinstance(seen, Seen)
    assert seen.values("x-org-id") == []


def test_http_is_decided_as_well(plane: Plane) -> None:
    good, missing = (
        http1.get(plane.target, "/a", [bearer(plane.sign()), *FORGED]),
        http1.get(plane.target, "/a", FORGED),
    )

    assert (good.status, missing.status) == (200, 401)
    assert dict(good.json["headers"])["x-org-id"] == ORG


@pytest.mark.parametrize("path", ["//denied", "/a/../denied", "/%64enied", "/a/%2e%2e/denied"])
def test_path_has_one_spelling(plane: Plane, path: str) -> None:
    assert http1.get(plane.target, path, [bearer(plane.sign())]).status == 403


def test_server_that_does_not_answer_lets_nothing_in(plane: Plane) -> None:
    # Envoy Gateway had no words for the status until it had statusOnError.
    expected = "PERMISSION_DENIED" if plane.name == "envoy-gateway" else "UNAVAILABLE"

    assert plane.grpc(CALL, bearer(plane.sign()), channel=plane.broken) == expected


@pytest.mark.parametrize("name", MAKERS)
def test_stream_ends_with_its_token(ec_key: SigningKey, tmp_path: Path, name: str) -> None:
    verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(ec_key), algorithms=["ES256"], leeway=1)
    with contextlib.ExitStack() as running:
        address = f"unix:{tmp_path}/authz.sock"
        running.enter_context(serve_here(Authorizer(verifier), address, end_streams=True))
        upstreams = running.enter_context(endless_grpc(Endless())), running.enter_context(endless_web())
        envoy = Envoy(MAKERS[name](address, *upstreams), tmp_path)
        running.callback(envoy.stop)
        channel = running.enter_context(channel_to(envoy.addresses()["ingress"]))
        token = bearer(ec_key.sign(m2m_claims(time.time(), exp=time.time() + 0.5)))
        began = time.monotonic()
        call = channel.unary_stream(DOWN)(b"", metadata=[token], timeout=PATIENCE)
        with contextlib.suppress(grpc.RpcError):
            for _ in call:
                pass

        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert 1.4 <= time.monotonic() - began <= PATIENCE / 2
