"""Quotas behind a real Envoy: what its clients see, and what its own rate-limit filter gets to know."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import yaml

from authz.call.metadata import TrustedMetadata
from authz.demo.issuer.signing import SigningKey
from authz.demo.processes import Envoy
from authz.envoy.config import bootstrap, cluster, grpc_route, listener
from authz.envoy.config.authz_cluster import authz_cluster
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.policy import Policy
from tests.doubles import AUDIENCE, ISSUER, ORG, jwks
from tests.e2e import http1
from tests.e2e.mesh import METERED, Mesh, grpc_echo, serve_here
from tests.e2e.variants import manager_of
from tests.envoy.check.messages import sentence
from tests.interceptors.client import bearer, call
from tests.interceptors.servers import channel_to, on_loopback
from tests.policy.test_docs import example

CALL = "/tests.Guarded/Call"


def test_grpc_client_over_its_quota_is_told_so_and_not_that_the_server_is_unavailable(
    mesh: Mesh, sign: Callable[..., str]
) -> None:
    """Clients try again what is UNAVAILABLE."""
    with channel_to(mesh.target) as channel:
        *admitted, refused = [
            call(channel, "unary_unary", CALL, metadata=bearer(sign(org_id=METERED[1]))) for _ in range(4)
        ]

    assert [outcome.code for outcome in admitted] == [grpc.StatusCode.OK] * 3
    assert (refused.code, refused.details, refused.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "Quota exceeded",
        "QUOTA_EXCEEDED",
    )
    assert 600 < refused.retry_delay <= 1020
    assert refused.trailers["retry-after"] == str(refused.retry_delay)


def test_http_client_over_its_quota_gets_429_and_when_to_come_back(mesh: Mesh, sign: Callable[..., str]) -> None:
    token = bearer(sign(org_id=METERED[2]))
    answers = [http1.get(mesh.target, "/accounts", headers=token) for _ in range(4)]

    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert sentence(answers[-1].json) == ("resource_exhausted", "Quota exceeded")
    assert 600 < int(answers[-1].headers["retry-after"]) <= 1020


# ---- Envoy's own filter ----


def field(number: int, value: bytes | int) -> bytes:
    """Return one field of a message; small ones will do."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


class RateLimitService(grpc.GenericRpcHandler):
    """Has no limit of its own: it notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def service(self, _details: Any) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._should_rate_limit)

    def _should_rate_limit(self, request: bytes, _context: Any) -> bytes:
        self.asked.append(request)
        return field(1, 1)  # OK


@contextlib.contextmanager
def limited(folder: Path, key: SigningKey, service: RateLimitService) -> Iterator[str]:
    """Start an Envoy with the filter and the actions of the documentation; yield its address."""
    quotas = {"quotas": {"basic": {"requests_per_second": 10}}, "default_quota": "basic"}
    policy = Policy.from_document({"name": "p", "allow_rules": [{"name": "all"}], **quotas})
    verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(key), algorithms=["ES256"])
    http_filter, route = (
        yaml.safe_load(example(folder, f"ratelimit-{name}.yaml").read_text(encoding="utf-8"))
        for name in ("filter", "route")
    )
    listening = listener(
        "main",
        "127.0.0.1:0",
        [{**grpc_route("grpc"), "route": {**grpc_route("grpc")["route"], **route}}],
        authz="authz",
        trusted=TrustedMetadata(),
    )
    manager_of(listening)["http_filters"].insert(1, http_filter)
    with contextlib.ExitStack() as running:
        running.enter_context(serve_here(Authorizer(verifier, policy=policy), f"unix:{folder}/authz.sock"))
        server = grpc.server(ThreadPoolExecutor(2), handlers=[service])
        service_address = on_loopback(server)
        server.start()
        running.callback(lambda: server.stop(0).wait(120))
        clusters = [
            authz_cluster("authz", [f"unix:{folder}/authz.sock"]),
            cluster("ratelimit", [service_address], http2=True),
            cluster("grpc", [running.enter_context(grpc_echo())], http2=True),
        ]
        envoy = Envoy(bootstrap([listening], clusters, admin="127.0.0.1:0"), folder)
        running.callback(envoy.stop)
        yield envoy.addresses()["main"]


def test_rate_limit_filter_is_told_the_organization_and_its_rate(
    tmp_path: Path, ec_key: SigningKey, sign: Callable[..., str]
) -> None:
    service = RateLimitService()
    with limited(tmp_path, ec_key, service) as target, channel_to(target) as channel:
        outcome = call(channel, "unary_unary", CALL, metadata=bearer(sign()))

    entry = field(1, b"organization") + field(2, ORG.encode())
    ten_per_second = field(1, 10) + field(2, 1)
    descriptor = field(1, entry) + field(2, ten_per_second)
    assert outcome.code is grpc.StatusCode.OK
    assert service.asked == [field(1, b"organizations") + field(2, descriptor)]
