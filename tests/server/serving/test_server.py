"""The server with everything real around it: bytes on sockets, health, signals, and nothing in its log to steal."""

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from authz.call.call import Call
from authz.call.principal import Principal
from authz.decisions.decision import Evidence
from authz.demo.issuer.signing import SigningKey
from authz.envoy.check.servicer import SERVICE
from authz.envoy.v3.external_auth_pb2 import CheckRequest, CheckResponse
from authz.errors import ConfigError
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.runtime.flow import Flow
from authz.server.serving.server import EngineName
from tests.doubles import AUDIENCE, ISSUER, ORG, FakeTransport, ManualClock, m2m_claims
from tests.envoy.check.messages import GRPC, Denial, bearer, in_header_map, in_headers
from tests.programs import Program
from tests.server.serving.serving import CHECK, LOOPBACK, NOT_SERVING, SERVING, BeginWaiting, KeyServer, Served, serving

# ---- Check ----


def test_good_token_is_allowed(server: Served, question: CheckRequest) -> None:
    response = server.check(question)

    assert response.status.code == 0
    assert {o.header.key: o.header.value for o in response.ok_response.headers}["x-org-id"] == ORG


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x0a\xff\xff", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100_000])
def test_garbage_is_denied_and_no_rpc_error(server: Served, body: bytes) -> None:
    denial = Denial(server.check(body))

    assert (denial.code, denial.http_status) in {(7, 403), (16, 401)}


def test_largest_headers_and_body_are_denied_and_no_rpc_error(server: Served) -> None:
    question = in_header_map(GRPC, ("authorization", "Bearer " + "a" * 61_000))
    question.attributes.request.http.raw_body = b"b" * 4_000_000

    assert Denial(server.check(question)).reason == "TOKEN_MALFORMED"


class Faulty(Authorizer):
    def authorize(self, _call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
        raise StrangeError("secret")
        yield


class StrangeError(BaseException):
    """Nothing that ``except Exception`` would catch."""


def test_fault_of_ours_is_a_denial_and_the_server_goes_on(
    verifier: Verifier, question: CheckRequest, engine: EngineName
) -> None:
    with serving(Faulty(verifier), LOOPBACK, engine=engine) as server:
        denials = [Denial(server.check(question)) for _ in range(2)]

    assert [(denial.code, denial.http_status, denial.body) for denial in denials] == [(13, 500, "Internal error")] * 2


def test_outage_of_the_keys_is_a_denial_with_a_hint(
    authorizer: Authorizer, question: CheckRequest, transport: FakeTransport, engine: EngineName
) -> None:
    transport.down()
    with serving(authorizer, LOOPBACK, engine=engine) as server:
        denial = Denial(server.check(question))

    assert (denial.code, denial.http_status, denial.reason) == (14, 503, "KEY_SET_UNAVAILABLE")
    assert denial.headers["retry-after"] == str(denial.retry_delay)
    assert 1 <= denial.retry_delay <= 60


def test_outage_over_http_has_the_hint_too(
    authorizer: Authorizer, ec_key: SigningKey, transport: FakeTransport, engine: EngineName
) -> None:
    transport.down()
    with serving(authorizer, LOOPBACK, engine=engine) as server:
        denial = Denial(server.check(in_headers(bearer(ec_key.sign(m2m_claims())), path="/whoami")))

    assert (denial.http_status, denial.json["error"]) == (503, "Authorization is unavailable")
    assert 1 <= int(denial.headers["retry-after"]) <= 60


def test_client_that_gives_up_takes_no_keys_from_others(
    server: Served, begin_waiting: BeginWaiting, transport: FakeTransport
) -> None:
    given_up, patient = begin_waiting(server), server.begin(begin_waiting.question)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        server.run(given_up)
    transport.release()

    assert CheckResponse.FromString(server.run(patient)).status.code == 0
    assert transport.fetches == 2


# ---- Where it listens ----


def test_unix_socket_and_tcp_serve_together(
    authorizer: Authorizer, question: CheckRequest, tmp_path: Path, engine: EngineName
) -> None:
    socket_address = f"unix:{tmp_path}/authz.sock"
    with serving(authorizer, LOOPBACK, socket_address, engine=engine) as server:
        tcp, unix = server.addresses
        other = server.connect(unix)
        answers = [server.check(question), server.check(question, other)]
        server.run(other.close())

    assert [answer.status.code for answer in answers] == [0, 0]
    assert unix == socket_address
    assert int(tcp.removeprefix("127.0.0.1:")) > 0


def test_ipv6_address_keeps_its_brackets(authorizer: Authorizer, engine: EngineName) -> None:
    with serving(authorizer, "[::1]:0", engine=engine) as server:
        assert server.addresses[0].startswith("[::1]:")


@pytest.mark.parametrize(
    "address", ["localhost", "9191", "127.0.0.1:", "127.0.0.1:http", ":9191", "127.0.0.1:65536", "unix:"]
)
def test_address_needs_host_and_port(authorizer: Authorizer, address: str, engine: EngineName) -> None:
    with (
        pytest.raises(ConfigError, match=r"^listen: '.*' is neither HOST:PORT, tls:HOST:PORT nor unix:PATH$"),
        serving(authorizer, address, engine=engine),
    ):
        pass


def test_port_in_use_is_a_wrong_setting(authorizer: Authorizer, engine: EngineName) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(ConfigError, match=rf"^listen: '{address}' cannot be bound"),
            serving(authorizer, address, engine=engine),
        ):
            pass


def test_port_of_another_server_of_ours_is_not_shared(
    server: Served, authorizer: Authorizer, engine: EngineName
) -> None:
    [address] = server.addresses
    with (
        pytest.raises(ConfigError, match=rf"^listen: '{address}' cannot be bound"),
        serving(authorizer, address, engine=engine),
    ):
        pass


def test_socket_in_no_folder_is_a_wrong_setting(authorizer: Authorizer, tmp_path: Path, engine: EngineName) -> None:
    with (
        pytest.raises(ConfigError, match=r"^listen: .* cannot be bound"),
        serving(authorizer, f"unix:{tmp_path}/no/a.sock", engine=engine),
    ):
        pass


def test_address_that_others_can_reach_is_warned_about(
    authorizer: Authorizer, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(authorizer, "0.0.0.0:0"):
        pass

    assert [record.fields["address"] for record in caplog.records if record.event == "listening_without_tls"] == [
        "0.0.0.0:0"
    ]


# ---- Health ----


@pytest.mark.parametrize("service", ["", SERVICE])
def test_server_without_keys_is_not_serving_until_it_has_them(
    authorizer: Authorizer, transport: FakeTransport, service: str, engine: EngineName
) -> None:
    transport.hang()
    with serving(authorizer, LOOPBACK, engine=engine) as server:
        before, watching = server.health(service), server.watch(service)
        seen = [next(watching)]
        transport.release()
        seen.append(next(watching))

        assert (before, seen) == (NOT_SERVING, [NOT_SERVING, SERVING])
        assert server.health(service) == SERVING


def test_health_follows_the_keys(server: Served, transport: FakeTransport, clock: ManualClock) -> None:
    watching = server.watch()
    seen = [status for status in [next(watching)] if status == SERVING] or [next(watching)]
    clock.advance(3601)
    transport.down()
    seen.append(next(watching))
    clock.advance(120)
    transport.up()
    seen.append(next(watching))

    assert seen == [SERVING, NOT_SERVING, SERVING]


class UnluckyVerifier(Verifier):
    """Fails once as nobody has foreseen."""

    faults = 1

    def warm_up_flow(self, timeout: float = 5.0) -> Flow[None]:
        if self.faults:
            self.faults -= 1
            raise RuntimeError("secret")
        return super().warm_up_flow(timeout)


def test_fault_while_warming_up_does_not_freeze_the_health(
    transport: FakeTransport, clock: ManualClock, caplog: pytest.LogCaptureFixture, engine: EngineName
) -> None:
    verifier = UnluckyVerifier(issuer=ISSUER, audience=AUDIENCE, transport=transport, clock=clock.clock)
    with serving(Authorizer(verifier), LOOPBACK, engine=engine) as server:
        watching = server.watch()
        seen = [next(watching), next(watching)]

    assert seen == [NOT_SERVING, SERVING]
    assert "secret" not in caplog.text


def test_other_services_are_unknown(server: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        server.health("other")

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


# ---- The end ----


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_lets_running_checks_finish(
    authorizer: Authorizer,
    begin_waiting: BeginWaiting,
    transport: FakeTransport,
    number: int,
    caplog: pytest.LogCaptureFixture,
    *,
    engine: EngineName,
) -> None:
    caplog.set_level("INFO", "authz")
    with serving(authorizer, LOOPBACK, engine=engine) as server:
        running = begin_waiting(server)
        watching = server.watch()
        assert next(watching) == SERVING
        signal.raise_signal(number)
        assert next(watching) == NOT_SERVING
        watching.close()
        transport.release()
        answer = CheckResponse.FromString(server.run(running))
        server.run(server.ended)

    assert answer.status.code == 0
    assert transport.closed
    assert caplog.records[-1].event == "stopped"


def test_grace_ends_what_does_not_finish(
    authorizer: Authorizer, begin_waiting: BeginWaiting, engine: EngineName
) -> None:
    with serving(authorizer, LOOPBACK, grace=0.1, engine=engine) as server:
        running = begin_waiting(server)
        server.stop()

        with pytest.raises(grpc.aio.AioRpcError):
            server.run(running)


# ---- As a process ----

Serve = Callable[..., Program]


@pytest.fixture
def serve_command(tmp_path: Path, engine: EngineName) -> Iterator[Serve]:
    programs: list[Program] = []

    def start(*flags: str) -> Program:
        verifier = ("--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256")
        program = Program("serve", "--engine", engine, "--log-level", "debug", *verifier, *flags, folder=tmp_path)
        programs.append(program)
        return program

    yield start
    for program in programs:
        with program:
            pass


def test_sigterm_drains_and_exits_0(serve_command: Serve, ec_key: SigningKey, other_key: SigningKey) -> None:
    question = in_headers(GRPC, bearer(other_key.sign(m2m_claims(time.time()))))
    with KeyServer(ec_key) as keys:
        program = serve_command("--listen", LOOPBACK, "--jwks-url", keys.url)
        [address] = program.await_event("listening")["addresses"]
        program.await_event("health", status="SERVING")
        keys.await_request()
        with grpc.insecure_channel(address) as channel:
            watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=120)
            assert next(watching).status == SERVING
            # A key that the server does not know yet: the check waits for another fetch.
            keys.hold()
            running = channel.unary_unary(CHECK).future(question.SerializeToString(), timeout=120)
            keys.await_request()
            program.send(signal.SIGTERM)
            assert next(watching).status == NOT_SERVING
            watching.cancel()
            keys.release(ec_key, other_key)
            answer = CheckResponse.FromString(running.result())

        assert answer.status.code == 0
        assert program.wait() == 0
        assert program.events()[-1]["event"] == "stopped"


def test_issuer_may_start_later(serve_command: Serve, ec_key: SigningKey) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    program = serve_command("--listen", LOOPBACK, "--jwks-url", f"http://127.0.0.1:{port}/jwks")
    program.await_event("health", status="NOT_SERVING")
    with KeyServer(ec_key, port=port):
        program.await_event("health", status="SERVING")


def test_no_part_of_a_token_is_logged(serve_command: Serve, ec_key: SigningKey, other_key: SigningKey) -> None:
    good = ec_key.sign(m2m_claims(time.time()))
    tokens = [
        good,
        ec_key.sign(m2m_claims()),
        other_key.sign(m2m_claims(time.time()), {"kid": ec_key.kid}),
        other_key.sign(m2m_claims(time.time())),
        good.replace(".", ".."),
        "opaque-token-0123456789",
    ]
    with KeyServer(ec_key) as keys:
        program = serve_command("--listen", LOOPBACK, "--jwks-url", keys.url)
        [address] = program.await_event("listening")["addresses"]
        with grpc.insecure_channel(address) as channel:
            check = channel.unary_unary(CHECK)
            for token in tokens:
                check(in_headers(GRPC, bearer(token)).SerializeToString(), timeout=120)
                check(b"\xff" + token.encode(), timeout=120)
        program.send(signal.SIGTERM)

        assert program.wait() == 0
    assert sum(event["event"] == "call_refused" for event in program.events()) == 11
    assert [part for token in tokens for part in token.split(".") if part and part in program.text] == []
    assert all(line.startswith("{") for line in program.log)
