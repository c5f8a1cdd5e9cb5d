"""Tokens on outgoing RPCs: every kind, every way of calling, and what follows a refusal."""

import contextlib
import gc
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import grpc
import grpc.aio
import grpc.experimental
import pytest

import interceptors
from authz.issuer.token_source import ClientCredentials
from interceptors.aio.kinds import every_kind
from tests.doubles import ISSUER, FakeTokenEndpoint, ManualClock, eventually
from tests.interceptors.callers import CALLERS
from tests.interceptors.client import DEADLINE
from tests.interceptors.gate import REFUSAL, Gate
from tests.interceptors.servers import PATIENCE, bound, sync_server
from tests.interceptors.service import KINDS, is_request_streaming, is_response_streaming, method
from tests.loopback import certificate

SECRET = "the-secret-of-a-client"

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
ONE_REQUEST = pytest.mark.parametrize("kind", [kind for kind in KINDS if not is_request_streaming(kind)])


def is_repeated(caller, kind):
    """Say whether a refused call is made once more: where the caller waits for the one response."""
    return kind == "unary_unary" and caller.name != "grpc-future"


def ways(*, repeated):
    return pytest.mark.parametrize(
        ("caller", "kind"),
        [
            pytest.param(caller, kind, id=f"{caller.name}-{kind}")
            for caller in CALLERS
            for kind in KINDS
            if is_repeated(caller, kind) == repeated
        ],
    )


REPEATED, NOT_REPEATED = ways(repeated=True), ways(repeated=False)


# Some of their fixtures are asked for by name.
pytestmark = pytest.mark.server


@pytest.fixture(params=CALLERS, ids=lambda caller: caller.name)
def caller(request):
    return request.param


@pytest.fixture
def endpoint():
    return FakeTokenEndpoint()


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def transport(endpoint):
    """Return the network of the token endpoint, which says when it is asked."""
    asked, fetch = threading.Semaphore(0), endpoint.transport.fetch

    def noted(*args, **options):
        future = fetch(*args, **options)
        asked.release()
        return future

    endpoint.transport.fetch = noted
    endpoint.transport.asked = asked
    return endpoint.transport


@pytest.fixture
def source(transport):
    return ClientCredentials(
        ISSUER,
        client_id="client_a",
        client_secret=SECRET,
        transport=transport,
        clock=ManualClock().clock,
        jitter=lambda: 0.0,
    )


@pytest.fixture
def dial(caller, gate, loop):
    """Return a function that serves the gate and opens a channel to it; a plaintext one by default."""
    with contextlib.ExitStack() as stack:

        def begin(interceptors, channel=None, *, server=None, address="127.0.0.1:0"):
            pool = ThreadPoolExecutor(24)
            target = stack.enter_context(sync_server(gate.handlers(), pool=pool, bind=bound(server, address)))
            return stack.enter_context(caller.connect(loop, target, channel, interceptors))

        yield begin


@pytest.fixture
def ours(caller, source):
    return caller.package.bearer_interceptors(source)


@pytest.fixture
def connection(dial, ours):
    """Return a channel over local credentials."""
    return dial(ours, grpc.local_channel_credentials(), server=grpc.local_server_credentials())


@pytest.fixture
def plain(dial, caller, source):
    """Return a plaintext channel that is allowed to carry tokens."""
    return dial(caller.package.bearer_interceptors(source, insecure_channel=True))


def is_one_of(*tokens):
    return lambda token: token in tokens


def replies(kind, token):
    return [token] * 2 if kind == "unary_stream" else [token]


def ends(caller, kind, code):
    """Return how an RPC may end that is refused with ``code`` on this side of the wire."""
    # Without any interceptors, five in six of such stream-unary RPCs of grpc.aio are "locally cancelled".
    return {code, grpc.StatusCode.CANCELLED} if caller.name == "aio" and is_request_streaming(kind) else {code}


def least(kind):
    """Return the requests of a client that sends nothing, if it can: who writes to an end may miss the reason."""
    return {"requests": ()} if is_request_streaming(kind) else {}


# ---- On every call, and only where nobody listens ----


def test_every_call_bears_one_token(connection, gate, kind):
    outcome = connection.call(kind)

    assert (outcome.code, outcome.messages) == (grpc.StatusCode.OK, replies(kind, b"token-1"))
    assert gate.tokens == [["token-1"]]


def over_tls(folder):
    public, _ = certificate(folder)
    authority, key = public.read_bytes(), (folder / "key.pem").read_bytes()
    return {
        "server": grpc.ssl_server_credentials([(key, authority)]),
        "channel": grpc.ssl_channel_credentials(authority),
    }


def over_unix_socket(folder):
    kind = grpc.LocalConnectionType.UDS
    return {
        "server": grpc.local_server_credentials(kind),
        "channel": grpc.local_channel_credentials(kind),
        "address": f"unix:{folder / 'gate.sock'}",
    }


@pytest.mark.parametrize("secured", [over_tls, over_unix_socket])
def test_tokens_go_over_tls_and_unix_sockets(dial, ours, kind, tmp_path, secured):
    """I8."""
    connection = dial(ours, **secured(tmp_path))

    assert connection.call(kind).messages == replies(kind, b"token-1")


@pytest.fixture(params=["insecure_channel", "insecure_channel_credentials"])
def without_tls(request, dial, ours):
    """Return a plaintext channel, made in either way."""
    return dial(ours, None if request.param == "insecure_channel" else grpc.experimental.insecure_channel_credentials())


def test_without_tls_no_token_is_even_asked_for(without_tls, caller, gate, transport, kind):
    """I8."""
    outcome = without_tls.call(kind, **least(kind))

    assert outcome.code in ends(caller, kind, UNAUTHENTICATED)
    assert (gate.visits, transport.fetches) == ([], 0)


def test_a_channel_without_tls_can_be_allowed(plain, gate, kind):
    assert plain.call(kind).code is grpc.StatusCode.OK
    assert gate.tokens == [["token-1"]]


@REPEATED
def test_without_tls_a_refused_token_is_replaced_as_well(plain, gate, kind):
    gate.refuses = is_one_of("token-1")

    assert plain.call(kind).messages == replies(kind, b"token-2")
    assert gate.tokens == [["token-1"], ["token-2"]]


@pytest.fixture(params=["connection", "plain"])
def either(request):
    """Return a channel, in each of the ways that tokens can go out."""
    return request.getfixturevalue(request.param)


def test_without_a_token_there_is_no_call(either, caller, gate, kind, transport):
    transport.down(ZeroDivisionError(SECRET))
    outcome = either.call(kind, **least(kind))

    assert outcome.code in ends(caller, kind, grpc.StatusCode.UNAVAILABLE)
    assert f"no token from {ISSUER}/oauth2/token" in outcome.details or outcome.code is grpc.StatusCode.CANCELLED
    assert (gate.visits, SECRET in outcome.details) == ([], False)


def test_without_tls_a_call_waits_for_its_token_no_longer_than_its_deadline(plain, transport, kind, gate):
    transport.hang()
    outcome = plain.call(kind, timeout=0.1)

    assert (outcome.code, gate.visits) == (grpc.StatusCode.DEADLINE_EXCEEDED, [])


INVALID_CLIENT = "status 401 (invalid_client)"


def test_a_token_that_the_issuer_denies_ends_calls_as_unauthenticated(either, caller, gate, endpoint, kind):
    """I5: retry policies repeat UNAVAILABLE."""
    endpoint.refuses(401, {"error": "invalid_client"})
    outcomes = [either.call(kind, **least(kind)) for _ in range(3)]
    if not (is_repeated(caller, kind) or (caller.name == "grpc" and not is_response_streaming(kind))):
        # A plugin cannot choose gRPC's status, and a future or a stream has no other.
        assert outcomes.pop(0).code in ends(caller, kind, UNAUTHENTICATED) | {grpc.StatusCode.UNAVAILABLE}

    assert all(outcome.code in ends(caller, kind, UNAUTHENTICATED) for outcome in outcomes)
    assert all(INVALID_CLIENT in it.details or it.code is grpc.StatusCode.CANCELLED for it in outcomes)
    assert (gate.visits, endpoint.transport.fetches) == ([], 1)


class OddSource:
    """A source that fails as nobody foresaw."""

    def token_flow(self):
        raise ZeroDivisionError(SECRET)
        yield

    def invalidate(self, token):
        """Do nothing."""


@pytest.mark.parametrize("insecure_channel", [True, False])
def test_the_failure_of_a_source_is_not_told(dial, caller, kind, caplog, insecure_channel):
    ours = caller.package.bearer_interceptors(OddSource(), insecure_channel=insecure_channel)
    connection = dial(ours, grpc.local_channel_credentials(), server=grpc.local_server_credentials())
    outcome = connection.call(kind, **least(kind))

    assert outcome.code in ends(caller, kind, grpc.StatusCode.UNAVAILABLE)
    assert SECRET not in outcome.details + caplog.text
    assert "unforeseen_error" in caplog.text


# ---- What the caller brings ----


def test_an_authorization_of_the_callers_own_is_kept(connection, gate, kind, transport):
    outcome = connection.call(kind, metadata=(("authorization", "Bearer mine"),))

    assert (outcome.code, gate.tokens, transport.fetches) == (grpc.StatusCode.OK, [["mine"]], 0)


def test_a_refusal_of_the_callers_own_authorization_is_the_callers(connection, gate, kind, transport):
    gate.refuses = is_one_of("mine")
    outcome = connection.call(kind, metadata=(("authorization", "Bearer mine"),), **least(kind))

    assert (outcome.code, gate.tokens, transport.fetches) == (UNAUTHENTICATED, [["mine"]], 0)


def test_metadata_and_credentials_of_the_callers_own_go_out_too(connection, gate, kind):
    credentials = grpc.metadata_call_credentials(lambda _context, give: give((("x-credentials", "a"),), None))
    metadata = (("x-metadata", "b"),)
    connection.call(kind, metadata=metadata, credentials=credentials)

    [visit] = gate.visits
    assert (visit.metadata["x-credentials"], visit.metadata["x-metadata"]) == ("a", "b")
    assert visit.tokens == ["token-1"]


def test_the_callers_metadata_is_not_changed(loop, source, gate):
    metadata = grpc.aio.Metadata(("x-metadata", "b"))
    ours = interceptors.aio.bearer_interceptors(source, insecure_channel=True)
    with (
        sync_server(gate.handlers()) as address,
        CALLERS[-1].connect(loop, address, None, ours) as connection,
    ):
        connection.call("unary_unary", metadata=metadata)

    assert list(metadata) == [("x-metadata", "b")]
    assert gate.visits[0].metadata["x-metadata"] == "b"


# ---- After a refusal ----


@REPEATED
def test_a_call_whose_token_was_refused_is_made_once_more(connection, gate, transport, kind):
    """I6."""
    gate.refuses = is_one_of("token-1")
    outcome = connection.call(kind)

    assert (outcome.code, outcome.messages) == (grpc.StatusCode.OK, replies(kind, b"token-2"))
    assert gate.tokens == [["token-1"], ["token-2"]]
    assert transport.fetches == 2


@REPEATED
def test_a_call_is_made_twice_at_the_most(connection, gate, kind):
    """I6."""
    gate.refuses = lambda _token: True
    outcome = connection.call(kind)

    assert (outcome.code, outcome.details) == (UNAUTHENTICATED, REFUSAL)
    assert outcome.trailers["x-refused"] == "yes"
    assert gate.tokens == [["token-1"], ["token-2"]]


def test_a_call_without_its_details_is_made_once_more_too(channel, gate):
    """I6: the stub itself, where the callers above use ``with_call``."""
    gate.refuses = is_one_of("token-1")

    assert channel.unary_unary(method("unary_unary"))(b"") == b"token-2"
    assert gate.tokens == [["token-1"], ["token-2"]]


@NOT_REPEATED
def test_futures_and_streams_are_never_made_again(connection, gate, kind):
    """I6: but the next one has another token."""
    gate.refuses = is_one_of("token-1")
    outcome = connection.call(kind, **least(kind))
    assert (outcome.code, outcome.details, len(gate.visits)) == (UNAUTHENTICATED, REFUSAL, 1)

    # A caller whose call was refused may learn of it before the interceptor does.
    tokens = [connection.call(kind, **least(kind)) and gate.tokens[-1] for _ in range(2)]
    assert tokens[-1] == ["token-2"]


class Numbered:
    """A source with any number of tokens, of which each is dropped once."""

    def __init__(self):
        self.dropped = []
        self.dropping = threading.Semaphore(0)

    def token_flow(self):
        return f"token-{len(self.dropped)}"
        yield

    def invalidate(self, token):
        self.dropped.append(token)
        self.dropping.release()


@pytest.mark.parametrize("requests", [0, 1, 20])
def test_every_refused_token_is_dropped(dial, caller, gate, kind, requests):
    """I6: whichever of two truths grpc.aio tells first where a refusal meets a request."""
    source = Numbered()
    gate.refuses = lambda _token: True
    connection = dial(caller.package.bearer_interceptors(source, insecure_channel=True))
    calls, attempts = 25, 2 if is_repeated(caller, kind) else 1
    for number in range(1, calls + 1):
        connection.call(kind, **({"requests": [b"x"] * requests} if is_request_streaming(kind) else {}))
        assert source.dropping.acquire(timeout=PATIENCE)
        assert source.dropped == [f"token-{each}" for each in range(number)]

    assert len(gate.visits) == calls * attempts


def test_a_source_that_cannot_drop_a_token_harms_no_call(dial, caller, gate, kind, caplog):
    class Stubborn(Numbered):
        def invalidate(self, token):
            self.dropping.release()
            raise ZeroDivisionError(token)

    source = Stubborn()
    gate.refuses = lambda _token: True
    outcome = dial(caller.package.bearer_interceptors(source, insecure_channel=True)).call(kind, **least(kind))

    assert (outcome.code, outcome.details) == (UNAUTHENTICATED, REFUSAL)
    assert source.dropping.acquire(timeout=PATIENCE)
    assert eventually(lambda: "unforeseen_error" in caplog.text)


def test_a_stream_that_is_refused_late_drops_the_token(connection, gate):
    """I6."""
    gate.refuses, gate.is_late = is_one_of("token-1"), True
    outcome = connection.call("unary_stream")
    assert (outcome.code, outcome.messages, len(gate.visits)) == (UNAUTHENTICATED, [b"token-1"], 1)

    gate.is_late = False
    for _ in range(2):
        connection.call("unary_stream")
    assert gate.tokens[-1] == ["token-2"]


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE]
)
def test_other_ends_are_none_of_our_business(connection, gate, kind, code, transport):
    gate.before = lambda: gate.visits[-1].context.abort(code, "for another reason")
    outcome = connection.call(kind, **least(kind))

    assert (outcome.code, len(gate.visits), transport.fetches) == (code, 1, 1)


@REPEATED
def test_the_refusal_stands_while_no_other_token_can_be_had(connection, gate, transport, source, kind):
    source.token()
    transport.down()
    gate.refuses = lambda _token: True
    outcome = connection.call(kind)

    assert (outcome.code, outcome.details, len(gate.visits)) == (UNAUTHENTICATED, REFUSAL, 1)


@REPEATED
def test_the_refusal_stands_when_the_other_token_is_the_same(connection, gate, endpoint, kind):
    endpoint.changes = {"access_token": "always"}
    gate.refuses = lambda _token: True
    outcome = connection.call(kind)

    assert (outcome.code, gate.tokens, endpoint.issued) == (UNAUTHENTICATED, [["always"]], 2)


@REPEATED
def test_a_second_attempt_does_not_begin_after_the_deadline(connection, gate, transport, source, kind):
    source.token()
    transport.hang()
    gate.refuses = lambda _token: True
    outcome = connection.call(kind, timeout=0.3)
    transport.release()

    assert (outcome.code, outcome.details, len(gate.visits)) == (UNAUTHENTICATED, REFUSAL, 1)


def test_every_attempt_has_what_is_left_of_the_deadline(source):
    details = SimpleNamespace(timeout=5.0, metadata=None, credentials=None)
    rpc = interceptors.bearer.Bearer(source, details, insecure_channel=False)

    assert 5.0 >= rpc.attempt().timeout > rpc.attempt().timeout > 4.0


@REPEATED
def test_twenty_calls_with_one_stale_token_ask_for_one(connection, gate, transport, source, kind):
    """I6."""
    source.token()
    everybody = threading.Barrier(20, timeout=PATIENCE)
    gate.refuses = is_one_of("token-1")
    gate.before = lambda: len(gate.visits) <= 20 and everybody.wait()
    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(lambda _number: connection.call(kind), range(20)))

    assert {(outcome.code, *outcome.messages) for outcome in outcomes} == {
        (grpc.StatusCode.OK, *replies(kind, b"token-2"))
    }
    assert (transport.fetches, len(gate.visits)) == (2, 40)


@ONE_REQUEST
def test_tokens_and_secrets_are_nowhere_to_be_read(channel, gate, transport, caplog, kind):
    """I6, I8: not in logs, calls or exceptions."""
    caplog.set_level(logging.DEBUG)
    gate.refuses = lambda _token: True
    seen = []
    for _ in range(3):
        call = begin(channel, kind)
        seen += [call, call.exception(), call.details(), call.debug_error_string(), vars(call)]
        transport.down(ZeroDivisionError(SECRET))
    everything = repr(seen) + caplog.text

    assert "unforeseen_error" in caplog.text
    for secret in (SECRET, "token-1", "token-2"):
        assert secret not in everything


# ---- Giving up ----


# A call that blocks cannot be cancelled.
CANCELLABLE = pytest.mark.parametrize("caller", CALLERS[1:], ids=lambda caller: caller.name)


@pytest.mark.parametrize("caller", CALLERS[2:], ids=lambda caller: caller.name)
def test_a_call_cancelled_between_its_attempts_has_no_second(connection, gate, source, transport):
    source.token()
    transport.hang()
    gate.refuses = lambda _token: True
    call = connection.begin("unary_unary")
    for _ in range(2):
        assert transport.asked.acquire(timeout=PATIENCE)
    call.cancel()
    outcome = call.finish()
    transport.release()

    assert outcome.code in {UNAUTHENTICATED, grpc.StatusCode.CANCELLED}
    assert len(gate.visits) == 1


@ONE_REQUEST
@CANCELLABLE
def test_a_call_cancelled_in_its_first_attempt_ends_at_the_server(connection, gate, kind):
    arrived, gone = threading.Event(), threading.Event()

    def wait():
        gate.visits[-1].context.add_callback(gone.set)
        arrived.set()
        gone.wait(PATIENCE)

    gate.before = wait
    call = connection.begin(kind)
    assert arrived.wait(PATIENCE)
    call.cancel()

    assert call.finish().code is grpc.StatusCode.CANCELLED
    assert gone.wait(PATIENCE)
    assert len(gate.visits) == 1


@CANCELLABLE
def test_a_call_cancelled_while_it_waits_for_its_first_token_is_never_made(connection, gate, transport, kind):
    transport.hang()
    call = connection.begin(kind, **least(kind))
    assert transport.asked.acquire(timeout=PATIENCE)
    call.cancel()
    assert call.finish().code is grpc.StatusCode.CANCELLED
    transport.release()

    assert gate.visits == []


# ---- The calls that callers of grpc get ----


@pytest.fixture
def channel(gate, source):
    """Return a channel of grpc, with our interceptors."""
    ours = interceptors.bearer_interceptors(source)
    credentials = grpc.local_channel_credentials()
    options = [("grpc.use_local_subchannel_pool", 1)]
    with (
        sync_server(gate.handlers(), bind=bound(grpc.local_server_credentials())) as address,
        grpc.intercept_channel(grpc.secure_channel(address, credentials, options), *ours) as channel,
    ):
        yield channel


def begin(channel, kind, timeout=DEADLINE):
    stub = getattr(channel, kind)(method(kind))
    return (stub if is_response_streaming(kind) else stub.future)(b"", timeout=timeout)


@ONE_REQUEST
def test_a_future_waits_for_no_token(channel, transport, kind):
    transport.hang()
    call = begin(channel, kind)

    assert not call.done()
    transport.release()
    assert call.code() is grpc.StatusCode.OK or is_response_streaming(kind)
    call.cancel()


def test_a_stream_that_its_caller_has_forgotten_ends(channel, gate):
    """As one of grpc's own does, long before its deadline."""
    gone = threading.Event()
    gate.before = lambda: gate.visits[-1].context.add_callback(gone.set)
    gate.during = lambda: gone.wait(PATIENCE)
    call = begin(channel, "unary_stream", timeout=None)
    next(call)
    del call
    gc.collect()

    # Before its handler ends by itself.
    assert gone.wait(PATIENCE / 2)


def test_streams_that_only_their_reader_drives_drop_the_token_too(gate, source):
    """An experimental option of grpc: such calls are no futures."""
    gate.refuses = is_one_of("token-1")
    options = [("SingleThreadedUnaryStream", 1), ("grpc.use_local_subchannel_pool", 1)]
    with (
        sync_server(gate.handlers(), bind=bound(grpc.local_server_credentials())) as address,
        grpc.secure_channel(address, grpc.local_channel_credentials(), options) as plain,
    ):
        channel = grpc.intercept_channel(plain, *interceptors.bearer_interceptors(source))
        with pytest.raises(grpc.RpcError, match=REFUSAL):
            list(begin(channel, "unary_stream"))
        call = begin(channel, "unary_stream")
        messages = list(call)

    assert (messages, call.code()) == ([b"token-2"] * 2, grpc.StatusCode.OK)


def test_a_call_that_never_began_is_over(source, gate, kind, transport):
    transport.down()
    ours = interceptors.bearer_interceptors(source, insecure_channel=True)
    ends = []
    with sync_server(gate.handlers()) as address, grpc.insecure_channel(address) as plain:
        call = begin(grpc.intercept_channel(plain, *ours), kind)
        call.add_done_callback(ends.append)

    assert (call.code(), gate.visits) == (grpc.StatusCode.UNAVAILABLE, [])
    assert call.details() in str(call)
    assert call.details() in call.debug_error_string()
    assert (call.initial_metadata(), call.trailing_metadata()) == ((), ())
    assert (call.done(), call.running(), call.is_active(), call.cancelled()) == (True, False, False, False)
    assert (ends, call.add_callback(ends.clear), call.cancel(), call.time_remaining()) == ([call], False, False, 0.0)
    assert call.exception() is call
    assert call.traceback() is not None
    with pytest.raises(grpc.RpcError):
        call.result()
    with pytest.raises(grpc.RpcError):
        next(iter(call))


# ---- Among other interceptors ----


class Passing(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Behaves as that of OpenTelemetry: it looks at the end of every call, and turns streams into bare iterators."""

    def __init__(self, codes):
        self._codes = codes

    def intercept_unary_unary(self, continuation, details, request):
        call = continuation(details, request)
        call.add_done_callback(lambda done: self._codes.append(done.code()))
        return call

    intercept_stream_unary = intercept_unary_unary

    def intercept_unary_stream(self, continuation, details, request):
        try:
            yield from continuation(details, request)
        except grpc.RpcError as error:
            self._codes.append(error.code())
            raise
        self._codes.append(grpc.StatusCode.OK)

    intercept_stream_stream = intercept_unary_stream


def passing_in_tasks(codes):
    async def look(continuation, details, request):
        call = await continuation(details, request)
        call.add_done_callback(lambda _call: codes.append(None))
        return call

    async def iterate(continuation, details, request):
        call = await continuation(details, request)

        async def messages():
            async for message in call:
                yield message

        call.add_done_callback(lambda _call: codes.append(None))
        return messages()

    return every_kind(unary_unary=look, unary_stream=iterate, stream_unary=look, stream_stream=iterate)


WHERE = pytest.mark.parametrize("where", ["outer", "inner"])


def chained(ours, theirs, where):
    return [theirs, *ours] if where == "outer" else [*ours, theirs]


@WHERE
@pytest.mark.parametrize("refused", [(), ("token-1",)])
def test_other_interceptors_work_as_without_ours(source, gate, kind, where, refused):
    codes = []
    if kind == "unary_unary":
        gate.refuses = is_one_of(*refused)
    all_of_them = chained(interceptors.bearer_interceptors(source), Passing(codes), where)
    with (
        sync_server(gate.handlers(), bind=bound(grpc.local_server_credentials())) as address,
        grpc.secure_channel(address, grpc.local_channel_credentials()) as plain,
    ):
        stub = getattr(grpc.intercept_channel(plain, *all_of_them), kind)(method(kind))
        reply = stub(iter([b""]) if is_request_streaming(kind) else b"")
        messages = list(reply) if is_response_streaming(kind) else [reply]

    assert messages == replies(kind, gate.tokens[-1][0].encode())
    assert len(codes) == (len(gate.visits) if where == "inner" else 1)


@WHERE
def test_a_bare_iterator_that_is_refused_drops_the_token_as_well(source, gate, where):
    gate.refuses, gate.is_late = is_one_of("token-1"), True
    all_of_them = chained(interceptors.bearer_interceptors(source), Passing([]), where)
    with (
        sync_server(gate.handlers(), bind=bound(grpc.local_server_credentials())) as address,
        grpc.secure_channel(address, grpc.local_channel_credentials()) as plain,
    ):
        stub = grpc.intercept_channel(plain, *all_of_them).unary_stream(method("unary_stream"))
        messages = []
        with pytest.raises(grpc.RpcError):
            messages.extend(stub(b""))
        gate.is_late = False
        again = list(stub(b""))

    assert (messages, len(gate.visits), again) == ([b"token-1"], 2, [b"token-2"] * 2)


@WHERE
def test_other_interceptors_of_aio_work_as_without_ours(source, gate, loop, kind, where):
    codes = []
    if kind == "unary_unary":
        gate.refuses = is_one_of("token-1")
    ours, theirs = interceptors.aio.bearer_interceptors(source), passing_in_tasks(codes)
    all_of_them = [*theirs, *ours] if where == "outer" else [*ours, *theirs]
    with (
        sync_server(gate.handlers(), bind=bound(grpc.local_server_credentials())) as address,
        CALLERS[-1].connect(loop, address, grpc.local_channel_credentials(), all_of_them) as connection,
    ):
        outcome = connection.call(kind)

    assert outcome.messages == replies(kind, gate.tokens[-1][0].encode())
    assert len(codes) == (len(gate.visits) if where == "inner" else 1)
