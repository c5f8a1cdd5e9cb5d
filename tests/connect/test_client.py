"""Every RPC of a client bears a token of its source, and a refused one is replaced."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from connectrpc.client import ConnectClient
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.request import Headers

from authz import ClientCredentials, TokenSource
from authz.connect import bearer_interceptors, bearer_interceptors_sync
from authz.connect.client import _Tokens
from authz.runtime.flow import run
from tests.connect.client import CONNECT, OK, Outcome, begin, client, finish
from tests.connect.messages import GOOGLE
from tests.connect.servers import Server
from tests.connect.service import KINDS, AsgiApp, Handlers, Witness, method
from tests.doubles import ISSUER, FakeTokenEndpoint, ManualClock
from tests.interceptors.test_bearer import INVALID_CLIENT, SECRET, Numbered, OddSource

REFUSAL = "Invalid token"


class Gate:
    """Another's interceptor of a server, which refuses tokens."""

    def __init__(self) -> None:
        self.refuses: Callable[[str], bool] = lambda _token: False
        self.tokens: list[list[str]] = []
        self.is_late = False

    async def on_start(self, ctx: Any) -> None:
        found = [value.removeprefix("Bearer ") for value in ctx.request_headers.getall("authorization")]
        self.tokens.append(found)
        self._check(found)

    async def on_end(self, _token: None, _ctx: Any, _error: Exception | None, /) -> None:
        if self.is_late:
            raise ConnectError(Code.UNAUTHENTICATED, REFUSAL)

    def _check(self, found: list[str]) -> None:
        if not self.is_late and any(map(self.refuses, found)):
            raise ConnectError(Code.UNAUTHENTICATED, REFUSAL)


class OpenHandlers(Handlers):
    """Handlers that know no caller."""

    def reply(self) -> Any:
        return GOOGLE.order(note="served")


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def port(gate: Gate) -> Iterator[int]:
    witness = Witness()
    witness.look = lambda _ctx: None  # type: ignore[method-assign]
    with Server.UVICORN.serve(AsgiApp(GOOGLE, OpenHandlers(GOOGLE, witness), [gate])) as port:
        yield port


@pytest.fixture
def endpoint() -> FakeTokenEndpoint:
    return FakeTokenEndpoint()


@pytest.fixture
def source(endpoint: FakeTokenEndpoint, clock: ManualClock) -> ClientCredentials:
    return ClientCredentials(
        ISSUER, client_id="c", client_secret=SECRET, transport=endpoint.transport, clock=clock.clock, jitter=lambda: 0.0
    )


Ask = Callable[..., Outcome]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, port: int) -> Ask:
    """Return a function that makes one call, by a client of each kind."""

    def ask_sync(source: TokenSource, kind: str, headers: Any = None, **options: Any) -> Outcome:
        ours = bearer_interceptors_sync(source)
        with client(port, GOOGLE, CONNECT, interceptors=ours) as one:
            return finish(begin(one, GOOGLE, kind, [GOOGLE.order()], headers=headers, **options))

    def ask_async(source: TokenSource, kind: str, headers: Any = None, **options: Any) -> Outcome:
        return asyncio.run(_ask(port, source, kind, headers=headers, **options))

    return ask_sync if request.param == "sync" else ask_async


async def _ask(port: int, source: TokenSource, kind: str, **options: Any) -> Outcome:
    info, outcome = method(GOOGLE, kind), Outcome()

    async def requests() -> Any:
        yield GOOGLE.order()

    ours, codec = bearer_interceptors(source), GOOGLE.by_name["proto"]
    async with ConnectClient(f"http://127.0.0.1:{port}", codec=codec, interceptors=ours) as one:
        try:
            if kind == "unary":
                outcome.notes.append((await one.execute_unary(request=GOOGLE.order(), method=info, **options)).note)
            elif kind == "client_stream":
                reply = await one.execute_client_stream(request=requests(), method=info, **options)
                outcome.notes.append(reply.note)
            elif kind == "server_stream":
                async for reply in one.execute_server_stream(request=GOOGLE.order(), method=info, **options):
                    outcome.notes.append(reply.note)
            else:
                async for reply in one.execute_bidi_stream(request=requests(), method=info, **options):
                    outcome.notes.append(reply.note)
        except ConnectError as error:
            outcome.code, outcome.message = error.code.value, error.message
    return outcome


each_kind = pytest.mark.parametrize("kind", KINDS)
STREAMS = [kind for kind in KINDS if kind != "unary"]


@each_kind
def test_every_call_bears_one_token(ask: Ask, source: ClientCredentials, gate: Gate, kind: str) -> None:
    assert ask(source, kind).code == OK
    assert gate.tokens == [["token-1"]]


@each_kind
def test_an_authorization_of_the_callers_own_is_kept(
    ask: Ask, source: ClientCredentials, gate: Gate, kind: str, endpoint: FakeTokenEndpoint
) -> None:
    gate.refuses = lambda _token: True
    outcome = ask(source, kind, headers=Headers({"Authorization": "Bearer mine"}))

    assert (outcome.code, gate.tokens, endpoint.transport.fetches) == ("unauthenticated", [["mine"]], 0)


def test_a_unary_call_whose_token_was_refused_is_made_once_more(
    ask: Ask, source: ClientCredentials, gate: Gate
) -> None:
    gate.refuses = "token-1".__eq__

    assert ask(source, "unary").notes == ["served"]
    assert gate.tokens == [["token-1"], ["token-2"]]


def test_a_call_is_made_twice_at_the_most(ask: Ask, source: ClientCredentials, gate: Gate) -> None:
    gate.refuses = lambda _token: True
    outcome = ask(source, "unary")

    assert (outcome.code, outcome.message) == ("unauthenticated", REFUSAL)
    assert gate.tokens == [["token-1"], ["token-2"]]


@pytest.mark.parametrize("kind", STREAMS)
def test_streams_are_never_made_again_but_the_next_one_has_another_token(
    ask: Ask, source: ClientCredentials, gate: Gate, kind: str
) -> None:
    gate.refuses = "token-1".__eq__
    outcomes = [ask(source, kind).code for _ in range(2)]

    assert (outcomes, gate.tokens) == (["unauthenticated", OK], [["token-1"], ["token-2"]])


@pytest.mark.parametrize("kind", ["server_stream", "bidi_stream"])
def test_a_stream_that_is_refused_late_drops_the_token(
    ask: Ask, source: ClientCredentials, gate: Gate, kind: str
) -> None:
    gate.is_late = True
    outcome = ask(source, kind)
    gate.is_late = False
    ask(source, kind)

    assert (outcome.code, outcome.notes[:1]) == ("unauthenticated", ["served"])
    assert gate.tokens == [["token-1"], ["token-2"]]


@each_kind
def test_another_error_drops_no_token(ask: Ask, source: ClientCredentials, gate: Gate, kind: str) -> None:
    gate._check = _denied  # type: ignore[method-assign]  # noqa: SLF001 - ours
    for _ in range(2):
        assert ask(source, kind).code == "permission_denied"

    assert gate.tokens == [["token-1"], ["token-1"]]


def _denied(_found: Any) -> None:
    raise ConnectError(Code.PERMISSION_DENIED, "no")


@each_kind
def test_without_a_token_there_is_no_call(
    ask: Ask, source: ClientCredentials, gate: Gate, kind: str, endpoint: FakeTokenEndpoint
) -> None:
    endpoint.transport.down(ZeroDivisionError(SECRET))
    outcome = ask(source, kind)

    assert (outcome.code, gate.tokens) == ("unavailable", [])
    assert f"no token from {ISSUER}/oauth2/token" in outcome.message
    assert SECRET not in outcome.message


@each_kind
def test_a_token_that_the_issuer_denies_ends_calls_as_unauthenticated(
    ask: Ask, source: ClientCredentials, gate: Gate, kind: str, endpoint: FakeTokenEndpoint
) -> None:
    endpoint.refuses(401, {"error": "invalid_client"})
    outcome = ask(source, kind)

    assert (outcome.code, gate.tokens) == ("unauthenticated", [])
    assert INVALID_CLIENT in outcome.message


@each_kind
def test_a_call_waits_for_its_token_no_longer_than_its_deadline(
    ask: Ask, source: ClientCredentials, gate: Gate, kind: str, endpoint: FakeTokenEndpoint
) -> None:
    endpoint.transport.hang()

    assert ask(source, kind, timeout_ms=100).code == "deadline_exceeded"
    assert gate.tokens == []


@each_kind
def test_the_failure_of_a_source_is_not_told(ask: Ask, gate: Gate, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    outcome = ask(OddSource(), kind)

    assert (outcome.code, outcome.message, gate.tokens) == ("unavailable", "the token source failed", [])
    assert SECRET not in caplog.text
    assert "unforeseen_error" in caplog.text


@pytest.mark.parametrize("kind", STREAMS)
def test_a_source_that_cannot_drop_a_token_harms_no_call(ask: Ask, gate: Gate, kind: str) -> None:
    class Stubborn(Numbered):  # type: ignore[misc]
        def invalidate(self, token: str) -> None:
            raise ZeroDivisionError(token)

    gate.refuses = lambda _token: True

    assert ask(Stubborn(), kind).message == REFUSAL


def test_a_call_that_another_interceptor_makes_again_bears_a_new_token(
    port: int, source: ClientCredentials, gate: Gate
) -> None:
    class Again:
        def intercept_unary_sync(self, call_next: Any, request: Any, ctx: Any) -> Any:
            call_next(request, ctx)
            source.invalidate("token-1")
            return call_next(request, ctx)

    with client(port, GOOGLE, CONNECT, interceptors=[Again(), *bearer_interceptors_sync(source)]) as one:
        list(begin(one, GOOGLE, "unary", [GOOGLE.order()]))

    assert gate.tokens == [["token-1"], ["token-2"]]


# ---- Where a token may go ----


class Target:
    """What an interceptor sees of an RPC."""

    timeout_ms = None

    def __init__(self, server_address: str) -> None:
        self.server_address, self.request_headers = server_address, Headers()


@pytest.mark.parametrize(
    ("address", "is_sent"),
    [
        ("api.example.com:443", True),
        ("api.example.com:80", False),
        ("192.0.2.1:80", False),
        ("[2001:db8::1]:80", False),
        ("localhost:80", True),
        ("127.0.0.1:80", True),
        ("[::1]:80", True),
        ("api.example.com:8080", True),
    ],
)
def test_no_token_goes_to_port_80_of_another_machine(address: str, is_sent: bool) -> None:  # noqa: FBT001 - a table
    for insecure in (False, True):
        ctx: Any = Target(address)
        tokens = _Tokens(Numbered(), insecure_channel=insecure)
        if is_sent or insecure:
            assert run(tokens.begin(ctx)) == "token-0"
        else:
            with pytest.raises(ConnectError, match="no token is sent over plain http") as refused:
                run(tokens.begin(ctx))
            assert (refused.value.code, list(ctx.request_headers)) == (Code.UNAUTHENTICATED, [])


def test_a_plain_url_is_noticed(source: ClientCredentials, endpoint: FakeTokenEndpoint) -> None:
    with client(80, GOOGLE, CONNECT, interceptors=bearer_interceptors_sync(source)) as one:
        one._address = "http://api.example.invalid"  # noqa: SLF001 - no call goes there
        outcome = finish(begin(one, GOOGLE, "unary", [GOOGLE.order()]))

    assert (outcome.code, endpoint.transport.fetches) == ("unauthenticated", 0)
