"""Both engines under the same treatment: what waits, what breaks, and clients that behave badly."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from authz.call.call import Call
from authz.call.principal import Principal
from authz.decisions.decision import Evidence
from authz.envoy.check.outline import MAX_QUESTION_BYTES
from authz.envoy.check.servicer import AuthorizationServicer
from authz.envoy.v3.external_auth_pb2 import CheckRequest, CheckResponse
from authz.errors import ConfigError
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.runtime.flow import Flow, Wait
from authz.server.serving.grpcio_engine import GrpcioEngine
from authz.server.serving.health import Health
from authz.server.serving.native_engine import NativeEngine
from authz.server.serving.pulse import BEAT
from authz.server.serving.server import EngineName
from tests import programs
from tests.doubles import AUDIENCE, ISSUER, FakeTransport, ManualClock, eventually
from tests.envoy.check.messages import Denial
from tests.server.serving.raw_client import RawClient
from tests.server.serving.serving import CHECK, LOOPBACK, NOT_SERVING, PATIENCE, SERVING, BeginWaiting, Served, serving

ENGINES = {"grpcio": GrpcioEngine, "native": NativeEngine}

HEALTH = "/grpc.health.v1.Health"
SERVICE_UNKNOWN = 3

INTERNAL = (13, 500, "Internal error")

EMPTY_MESSAGE = bytes(5)


def verdict(denial: Denial) -> tuple[int, int, str]:
    return denial.code, denial.http_status, denial.body


def code_of(server: Served, method: str, body: bytes) -> grpc.StatusCode:
    """Return the status that a unary call ends with."""

    async def ask() -> grpc.StatusCode:
        return await server.channel.unary_unary(method)(body, timeout=PATIENCE).code()

    return server.run(ask())


# ---- Checks that wait ----


def test_check_that_waits_holds_up_no_other_on_its_connection(
    server: Served, begin_waiting: BeginWaiting, question: CheckRequest, transport: FakeTransport
) -> None:
    waiting = begin_waiting(server)
    answers = [server.check(question) for _ in range(100)]
    was_done = waiting.done()
    transport.release()

    assert {answer.status.code for answer in answers} == {0}
    assert not was_done
    assert CheckResponse.FromString(server.run(waiting)).status.code == 0


def test_check_that_waits_is_denied_when_the_keys_cannot_be_had(
    server: Served, begin_waiting: BeginWaiting, transport: FakeTransport
) -> None:
    waiting = begin_waiting(server)
    transport.down()
    transport.release()
    denial = Denial(CheckResponse.FromString(server.run(waiting)))

    assert (denial.code, denial.http_status) == (14, 503)


def test_everybody_who_waits_at_the_end_is_answered(
    authorizer: Authorizer, begin_waiting: BeginWaiting, transport: FakeTransport, tmp_path: Path, engine: EngineName
) -> None:
    with serving(authorizer, LOOPBACK, f"unix:{tmp_path}/a.sock", engine=engine) as server:
        waiting = [begin_waiting(server)]
        channels = [server.connect(address) for address in server.addresses for _ in range(2)]
        waiting += [server.begin(begin_waiting.question, channel) for channel in channels for _ in range(50)]
        # Whatever comes after them on their connections has been answered, so they are known to the server.
        for channel in channels:
            server.check(b"", channel)
        server.run(_raise_sigterm())
        # While the server runs: what it has answered last must be on its way before it closes.
        server.run(asyncio.to_thread(transport.release))
        answers = [CheckResponse.FromString(server.run(call)) for call in waiting]
        server.run(server.ended)
        for channel in channels:
            server.run(channel.close())

    assert [answer.status.code for answer in answers] == [0] * 201


async def _raise_sigterm() -> None:
    signal.raise_signal(signal.SIGTERM)


class Blocking(Authorizer):
    """Takes its time over a check, and lets nobody else do anything on its thread."""

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self.begun, self.may_end = threading.Event(), threading.Event()

    def authorize(self, call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
        self.begun.set()
        self.may_end.wait(PATIENCE)
        return super().authorize(call)


def test_native_engine_answers_what_it_is_deciding_at_the_end(verifier: Verifier, question: CheckRequest) -> None:
    blocking = Blocking(verifier)
    with serving(blocking, LOOPBACK, engine="native") as server:
        running = server.begin(question)
        server.run(asyncio.to_thread(blocking.begun.wait, PATIENCE))
        signal.raise_signal(signal.SIGTERM)
        # Other things happen at the end before the check is decided.
        server.run(asyncio.wait([server.ended], timeout=0.3))
        was_over = server.ended.done()
        blocking.may_end.set()
        answer = CheckResponse.FromString(server.run(running))
        server.run(server.ended)

    assert not was_over
    assert answer.status.code == 0


@contextlib.asynccontextmanager
async def noted(into: list[Health], health: Health) -> AsyncIterator[None]:
    into.append(health)
    yield


def test_native_engine_tells_of_a_thread_that_hangs(verifier: Verifier, question: CheckRequest) -> None:
    blocking, found = Blocking(verifier), list[Health]()
    with serving(blocking, LOOPBACK, engine="native", beside=[partial(noted, found)]) as server:
        server.until(lambda: found[0].reason == "")
        server.run(asyncio.sleep(3 * BEAT))
        idle = found[0].still
        running = server.begin(question)
        server.run(asyncio.to_thread(blocking.begun.wait, PATIENCE))
        server.run(until(lambda: found[0].still >= 2 * BEAT))
        blocking.may_end.set()
        server.run(running)
        server.run(until(lambda: found[0].still == 0))

    # On a busy machine an idle one may come late once.
    assert idle <= BEAT


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - the engine sends no event
        await asyncio.sleep(0.01)


def test_native_engine_ends_even_if_a_rule_does_not(verifier: Verifier, question: CheckRequest) -> None:
    blocking = Blocking(verifier)
    with serving(blocking, LOOPBACK, engine="native", grace=0.1) as server:
        running = server.begin(question)
        server.run(asyncio.to_thread(blocking.begun.wait, PATIENCE))
        server.stop()
        was_decided = blocking.may_end.is_set()
        with pytest.raises(grpc.aio.AioRpcError):
            server.run(running)
    blocking.may_end.set()

    assert not was_decided


# ---- What is too much ----


def test_question_of_more_than_4_mib_is_never_let_in(
    server: Served, engine: EngineName, question: CheckRequest
) -> None:
    question.attributes.request.http.raw_body = b"b" * MAX_QUESTION_BYTES
    if engine == "grpcio":
        assert code_of(server, CHECK, question.SerializeToString()) is grpc.StatusCode.RESOURCE_EXHAUSTED
    else:
        assert Denial(server.check(question)).code == grpc.StatusCode.PERMISSION_DENIED.value[0]


def test_grpcio_engine_unpacks_nothing(authorizer: Authorizer, question: CheckRequest) -> None:
    with serving(authorizer, LOOPBACK, engine="grpcio") as server:
        call = server.begin(question, compression=grpc.Compression.Gzip)

        assert server.run(call.code()) is grpc.StatusCode.UNIMPLEMENTED
        assert server.check(question).status.code == 0


def test_no_check_is_cancelled_because_many_wait_for_the_interpreter(server: Served) -> None:
    """More than gRPC keeps by default, from six connections, while nothing of Python runs in the server."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.addresses[0])) for _ in range(6)]
        streams = range(1, 1201, 2)
        for client in clients:
            for stream in streams:
                client.open(stream, CHECK)
                client.send(stream, EMPTY_MESSAGE)
        answers = server.run(asyncio.to_thread(lambda: [client.statuses(len(streams)) for client in clients]))

    assert answers == [[b"0"] * len(streams)] * 6


# ---- What breaks ----


class StrangeError(BaseException):
    """Nothing that ``except Exception`` would catch."""


class Breaking(Authorizer):
    """Waits for whatever a test holds, and then breaks."""

    def __init__(self, verifier: Verifier, error: BaseException) -> None:
        super().__init__(verifier)
        self.held: list[Future[None]] = []
        self._error = error

    def authorize(self, _call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
        future: Future[None] = Future()
        self.held.append(future)
        yield Wait(future, PATIENCE)
        raise self._error


def broken(server: Served, breaking: Breaking, question: CheckRequest) -> Denial:
    """Return the answer to a check that broke when it went on; another thread survives going on with it."""

    def bring() -> str:
        breaking.held.pop().set_result(None)
        return "goes on"

    running = server.begin(question)
    server.until(lambda: breaking.held)
    assert server.run(asyncio.to_thread(bring)) == "goes on"
    return Denial(CheckResponse.FromString(server.run(running)))


@pytest.mark.parametrize("error", [RuntimeError("secret"), StrangeError("secret"), GeneratorExit()], ids=repr)
def test_check_that_breaks_after_it_has_waited_is_denied_and_the_server_goes_on(
    verifier: Verifier, question: CheckRequest, engine: EngineName, error: BaseException
) -> None:
    breaking = Breaking(verifier, error)
    with serving(breaking, LOOPBACK, engine=engine) as server:
        denials = [broken(server, breaking, question) for _ in range(2)]

    assert [verdict(denial) for denial in denials] == [INTERNAL] * 2


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_native_engine_ends_for_no_rule_that_wants_to_exit(
    verifier: Verifier, question: CheckRequest, error: BaseException
) -> None:
    class Exiting(Authorizer):
        def authorize(self, _call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
            raise error
            yield

    breaking = Breaking(verifier, error)
    with serving(breaking, LOOPBACK, engine="native") as server:
        later = broken(server, breaking, question)
    with serving(Exiting(verifier), LOOPBACK, engine="native") as server:
        at_once = [Denial(server.check(question)) for _ in range(2)]

    assert [verdict(denial) for denial in (later, *at_once)] == [INTERNAL] * 3


class BrokenLog(logging.Handler):
    """A host's log that is out of order."""

    def emit(self, _record: logging.LogRecord) -> None:
        raise OSError("disk full")


@pytest.fixture
def broken_log() -> Iterator[Callable[[], None]]:
    handler, logger = BrokenLog(), logging.getLogger("authz")
    yield lambda: logger.addHandler(handler)
    logger.removeHandler(handler)


def test_log_that_is_out_of_order_makes_a_denial_and_no_rpc_error(
    server: Served, broken_log: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    server.until(lambda: server.health() == SERVING)
    caplog.set_level("INFO", "authz")
    broken_log()
    denials = [Denial(server.check(b"")) for _ in range(2)]

    assert [verdict(denial) for denial in denials] == [INTERNAL] * 2


# ---- Health ----


def test_watcher_of_an_unknown_service_is_told_so(server: Served) -> None:
    assert next(server.watch("other")) == SERVICE_UNKNOWN


def test_malformed_health_question_is_an_error_and_the_server_goes_on(server: Served) -> None:
    codes = [code_of(server, f"{HEALTH}/{method}", b"\xff") for method in ("Check", "Watch")]

    assert codes == [grpc.StatusCode.UNKNOWN] * 2
    assert server.health() in {SERVING, NOT_SERVING}


@pytest.mark.parametrize(
    "method", ["/other.Service/Method", "/envoy.service.auth.v3.Authorization/Other", f"{HEALTH}/List"]
)
def test_other_methods_are_unimplemented(server: Served, method: str) -> None:
    assert code_of(server, method, b"") is grpc.StatusCode.UNIMPLEMENTED


def test_all_watchers_learn_of_a_change(server: Served, transport: FakeTransport, clock: ManualClock) -> None:
    server.until(lambda: server.health() == SERVING)
    watching = [server.watch() for _ in range(20)]
    before = {next(watcher) for watcher in watching}
    clock.advance(3601)
    transport.down()

    assert (before, {next(watcher) for watcher in watching}) == ({SERVING}, {NOT_SERVING})


def test_native_engine_forgets_watchers_that_go_away(authorizer: Authorizer) -> None:
    async def cancelled(address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            calls = [channel.unary_stream(f"{HEALTH}/Watch")(b"", timeout=PATIENCE) for _ in range(20)]
            for call in calls:
                await call.read()
            counts.append(engine.watchers)
            for call in calls:
                call.cancel()

    def closed(address: str) -> None:
        with RawClient(address) as client:
            for number in range(1, 41, 2):
                client.open(number, f"{HEALTH}/Watch")
                client.send(number, b"\0\0\0\0\0")
                client.await_answer(number)
            assert eventually(lambda: engine.watchers == 20)  # the last one's headers come before it is counted
            counts.append(engine.watchers)

    async def forgotten() -> None:
        async with asyncio.timeout(PATIENCE):
            # The event comes on another thread, some time after the client has gone.
            while engine.watchers:
                await engine.set_health(NOT_SERVING)
                # The client's own loop has to get round to its farewell, and the engine's thread to the lock,
                # which a loop without any rest would hardly leave to it.
                await asyncio.sleep(0.01)
        counts.append(engine.watchers)

    async def scenario() -> None:
        address = f"127.0.0.1:{engine.bind(LOOPBACK)}"
        await engine.start()
        await cancelled(address)
        await forgotten()
        await asyncio.to_thread(closed, address)
        await forgotten()
        await engine.stop(0)

    counts: list[int] = []
    engine = NativeEngine(AuthorizationServicer(authorizer))
    asyncio.run(scenario())

    assert counts == [20, 0, 20, 0]


# ---- Clients that behave badly ----


def test_watcher_that_does_not_read_holds_up_nobody_and_is_told_later(
    authorizer: Authorizer, engine: EngineName
) -> None:
    # The last one is like none before it, and on the wire it is nothing.
    statuses, last = [SERVING, NOT_SERVING] * 3 + [health_pb2.HealthCheckResponse.UNKNOWN], b""

    def watch(address: str) -> RawClient:
        client = RawClient(address, window=0)
        client.open(1, f"{HEALTH}/Watch")
        client.send(1, b"\0\0\0\0\0")
        client.await_answer(1)
        return client

    async def scenario() -> list[int]:
        serving = ENGINES[engine](AuthorizationServicer(authorizer))
        address = f"127.0.0.1:{serving.bind(LOOPBACK)}"
        await serving.start()
        with await asyncio.to_thread(watch, address), await asyncio.to_thread(watch, address) as slow:
            async with grpc.aio.insecure_channel(address) as channel:
                reading = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
                seen = [(await reading.read()).status]
                for status in statuses:
                    await serving.set_health(status)
                    seen.append((await reading.read()).status)
            await asyncio.to_thread(slow.await_message, 1, last)
            await serving.stop(0.2)
        return seen

    async def in_time() -> list[int]:
        async with asyncio.timeout(PATIENCE):
            return await scenario()

    assert asyncio.run(in_time()) == [NOT_SERVING, *statuses]


def test_messages_that_promise_4_gb_leave_other_connections_alone(server: Served, question: CheckRequest) -> None:
    def promise() -> None:
        with RawClient(server.addresses[0]) as client:
            for number in range(1, 1001, 2):
                client.open(number, CHECK)
                client.until_it_is_cut_off(lambda number=number: client.send(number, b"\0\xff\xff\xff\xffx", end=False))

    server.run(asyncio.to_thread(promise))

    assert server.check(question).status.code == 0


# ---- Where they listen ----


def test_socket_that_was_left_behind_is_replaced_and_removed_at_the_end(
    authorizer: Authorizer, question: CheckRequest, tmp_path: Path, engine: EngineName
) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with serving(authorizer, f"unix:{path}", engine=engine) as server:
        answer = server.check(question)

    assert answer.status.code == 0
    assert not path.exists()


def test_file_that_is_no_socket_is_left_alone(authorizer: Authorizer, tmp_path: Path, engine: EngineName) -> None:
    path = tmp_path / "notes"
    path.write_text("precious")
    with (
        pytest.raises(ConfigError, match=r"^listen: .* cannot be bound"),
        serving(authorizer, f"unix:{path}", engine=engine),
    ):
        pass

    assert path.read_text() == "precious"


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:9191", "authz.internal:9191"])
def test_native_engine_refuses_addresses_that_others_can_reach(authorizer: Authorizer, address: str) -> None:
    with (
        pytest.raises(ConfigError, match=r"^listen: .* can be reached by other machines.*--engine grpcio$"),
        serving(authorizer, LOOPBACK, address, engine="native"),
    ):
        pass


# ---- Without the extra ----


def test_native_engine_without_its_extra_is_a_wrong_setting_that_names_it(tmp_path: Path) -> None:
    program = "import sys; sys.modules['pygrpc_native'] = None; from authz.__main__ import main; sys.exit(main())"
    arguments = ("serve", "--engine", "native", "--issuer", ISSUER, "--audience", AUDIENCE)
    done = programs.run("-c", program, *arguments, folder=tmp_path, command=(sys.executable, "-W", "error"))

    assert (done.returncode, done.stdout) == (2, "")
    assert "engine: native needs the extra: pip install 'grpc-org-authz[native]'" in done.stderr
    assert "Traceback" not in done.stderr
