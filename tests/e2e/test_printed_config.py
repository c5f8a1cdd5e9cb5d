"""What ``authz envoy-config`` prints, as it is printed, in a real Envoy with a real ``authz serve``."""

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest

from authz.demo.issuer.signing import SigningKey
from authz.demo.processes import Envoy
from authz.envoy.config.authz_cluster import endpoints
from authz.envoy.config.formats import Ingress, bootstrap
from authz.envoy.v3.external_auth_pb2 import CheckResponse
from tests import programs
from tests.certificates import Authority
from tests.doubles import AUDIENCE, ISSUER, ORG, PATIENCE, jwks, m2m_claims
from tests.e2e.mesh import seen_by_upstream
from tests.programs import Program
from tests.server.serving.serving import CHECK

CALL = "/tests.Guarded/Call"
VERIFIER = ("--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256")
# Port 9 (discard) has no HTTP server.
KEYLESS = ("--jwks-url", "http://127.0.0.1:9/jwks")


@pytest.fixture
def token(ec_key: SigningKey) -> str:
    return ec_key.sign(m2m_claims(time.time()))


@pytest.fixture
def static_keys(tmp_path: Path, ec_key: SigningKey) -> Sequence[str]:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)), encoding="utf-8")
    return ("--jwks", str(tmp_path / "jwks.json"))


@contextmanager
def authz_serve(folder: Path, socket: str, keys: Sequence[str]) -> Iterator[None]:
    with Program("serve", "--listen", socket, *VERIFIER, *keys, folder=folder) as server:
        server.await_event("listening")
        yield


@contextmanager
def envoy(folder: Path, config: dict[str, Any] | str) -> Iterator[tuple[Envoy, grpc.Channel]]:
    with ExitStack() as running:
        proxy = Envoy(config, folder)
        running.callback(proxy.stop)
        target = proxy.addresses()["ingress"]
        yield proxy, running.enter_context(grpc.insecure_channel(target))


def printed(folder: Path, upstream: str, *more: str, **variables: str) -> str:
    arguments = ("envoy-config", "--upstream", upstream, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *more)
    done = programs.run(*arguments, folder=folder, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def admin(folder: Path, path: str) -> str:
    address = (folder / "envoy-admin").read_text(encoding="utf-8")
    return httpx2.get(f"http://{address}{path}", trust_env=False, timeout=PATIENCE).text


def code_of(channel: grpc.Channel, *metadata: tuple[str, str]) -> grpc.StatusCode:
    code: grpc.StatusCode = channel.unary_unary(CALL).with_call(b"", metadata=metadata, timeout=120)[1].code()
    return code


def test_printed_bootstrap_lets_in_whom_the_server_knows(
    tmp_path: Path, upstream: str, static_keys: Sequence[str], token: str
) -> None:
    socket = f"unix:{tmp_path}/authz.sock"
    text = printed(tmp_path, upstream, AUTHZ_LISTEN=socket)
    with authz_serve(tmp_path, socket, static_keys), envoy(tmp_path, text) as (_, channel):
        forged = ("x-org-id", "org_FORGED")
        seen = seen_by_upstream(channel, CALL, [forged, ("authorization", f"Bearer {token}")])
        with pytest.raises(grpc.RpcError) as refused:
            code_of(channel, forged)

    assert seen.values("x-org-id") == [ORG]
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_server_that_all_know_to_be_sick_still_says_why(tmp_path: Path, upstream: str, token: str) -> None:
    socket = f"unix:{tmp_path}/authz.sock"
    text = printed(tmp_path, upstream, "--authz", socket)
    with authz_serve(tmp_path, socket, KEYLESS), envoy(tmp_path, text) as (proxy, channel):
        proxy.wait_for(lambda: "failed_active_hc" in admin(tmp_path, "/clusters"))
        with pytest.raises(grpc.RpcError) as refused:
            code_of(channel, ("authorization", f"Bearer {token}"))

    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert b"KEY_SET_UNAVAILABLE" in dict(refused.value.trailing_metadata())["grpc-status-details-bin"]


def test_no_call_fails_while_one_worker_is_gone(
    tmp_path: Path, upstream: str, static_keys: Sequence[str], token: str
) -> None:
    addresses = endpoints([f"unix:{tmp_path}/authz.sock"], workers=2)
    ingress = Ingress(authz=addresses, upstream=upstream, listen="127.0.0.1:0", admin="127.0.0.1:0")
    config = bootstrap(ingress).data
    # Envoy does not know yet: otherwise nobody would be asked who is not there.
    del config["static_resources"]["clusters"][0]["health_checks"]
    metadata = [("authorization", f"Bearer {token}")]
    with authz_serve(tmp_path, addresses[0], static_keys), envoy(tmp_path, config) as (_, channel):
        call = channel.unary_unary(CALL)
        calls = [call.future(b"", metadata=metadata, timeout=120) for _ in range(100)]
        codes = {running.code() for running in calls}
        repeated = admin(tmp_path, "/stats?filter=cluster.authz.upstream_rq_retry_success").split()[-1]

    assert codes == {grpc.StatusCode.OK}
    assert int(repeated) > 0


def test_sick_worker_is_not_asked(tmp_path: Path, upstream: str, static_keys: Sequence[str], token: str) -> None:
    socket = f"unix:{tmp_path}/authz.sock"
    text = printed(tmp_path, upstream, "--authz", socket, "--workers", "2")
    well, sick = endpoints([socket], workers=2)
    with (
        authz_serve(tmp_path, well, static_keys),
        authz_serve(tmp_path, sick, KEYLESS),
        envoy(tmp_path, text) as (proxy, channel),
    ):
        proxy.wait_for(lambda: "cluster.authz.membership_healthy: 1\n" in admin(tmp_path, "/stats"))
        codes = {code_of(channel, ("authorization", f"Bearer {token}")) for _ in range(10)}

    assert codes == {grpc.StatusCode.OK}


class Allow(grpc.GenericRpcHandler):
    """An authorization server that says yes, and takes its time; ``asked`` counts how often."""

    def __init__(self, seconds: float = 0) -> None:
        self.asked = 0
        self._seconds = seconds

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return grpc.unary_unary_rpc_method_handler(self._check) if details.method == CHECK else None

    def _check(self, _request: bytes, _context: grpc.ServicerContext) -> bytes:
        self.asked += 1
        time.sleep(self._seconds)
        return CheckResponse().SerializeToString()


@contextmanager
def allowing(allow: Allow, credentials: grpc.ServerCredentials) -> Iterator[str]:
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, handlers=[allow])
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


def test_slow_check_is_not_repeated(tmp_path: Path, upstream: str) -> None:
    # Longer than any pause, and well below the timeout of all.
    allow = Allow(seconds=0.4)
    with (
        allowing(allow, grpc.insecure_server_credentials()) as address,
        envoy(tmp_path, printed(tmp_path, upstream, "--authz", address)) as (_, channel),
    ):
        channel.unary_unary(CALL).future(b"", timeout=120).code()

    assert allow.asked == 1


@pytest.mark.parametrize("trusted", [True, False])
def test_server_is_believed_by_its_certificate(tmp_path: Path, upstream: str, *, trusted: bool) -> None:
    authority = Authority()
    own = authority.issue()
    ca = authority if trusted else Authority()
    files = {"ca": ca.root, "cert": own.chain, "key": own.key}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    flags = [f"--authz-{name}-file={tmp_path / name}" for name in files]
    loopback = authority.issue_for_loopback()
    mutual = grpc.ssl_server_credentials([(loopback.key, loopback.chain)], authority.root, require_client_auth=True)
    with (
        allowing(Allow(), mutual) as address,
        envoy(tmp_path, printed(tmp_path, upstream, "--authz", f"tls:{address}", *flags)) as (_, channel),
    ):
        answer = channel.unary_unary(CALL).future(b"", timeout=120)
        code = answer.code()

    assert code is (grpc.StatusCode.OK if trusted else grpc.StatusCode.UNAVAILABLE)
