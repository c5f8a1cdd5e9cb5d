"""WebSockets: their handshake is judged like a request, and they end with their token."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import websockets.sync.client
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus

from authz import Authorizer, Decision, Policy, current_principal
from authz.asgi import AuthzMiddleware
from tests.asgi.conftest import NewJudge, Serve, Token
from tests.asgi.test_streams import ENDINGS, METERED
from tests.doubles import ORG, ManualClock, eventually
from tests.http.client import bearer
from tests.judge.held_back import hold_back


async def _chat(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(f"{current_principal().org_id} {websocket.state.principal.org_id}")
    async for text in websocket.iter_text():
        await websocket.send_text(text)


async def _hesitant(websocket: WebSocket) -> None:
    await websocket.receive()
    await websocket.receive()


APP = Starlette(routes=[WebSocketRoute("/chat", _chat), WebSocketRoute("/hesitant", _hesitant)])

Connect = Callable[..., Any]


@pytest.fixture(params=["websockets-sansio", "wsproto"])
def implementation(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def connect(serve: Serve, implementation: str) -> Connect:
    """Return a function that serves the application behind a judge, and connects to it."""

    def begin(judge: Authorizer, token: str = "", path: str = "/chat", **options: Any) -> Any:
        port = serve(AuthzMiddleware(APP, judge, **options), ws=implementation)
        headers = bearer(token) if token else []
        return lambda: websockets.sync.client.connect(f"ws://127.0.0.1:{port}{path}", additional_headers=headers)

    return begin


def test_handler_finds_its_caller(connect: Connect, judge: Authorizer, token: Token) -> None:
    with connect(judge, token())() as socket:
        assert socket.recv() == f"{ORG} {ORG}"
        socket.send("hello")
        assert socket.recv() == "hello"


def test_handshake_is_refused_as_a_request_is(connect: Connect, judge: Authorizer, told: list[Decision]) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(judge)()

    response = refused.value.response
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="api"'
    assert b'"error": "No token provided"' in response.body
    assert [(each.verdict, each.call.verb) for each in told] == [("denied", "GET")]


def test_no_message_passes_before_a_websocket_of_thousands_has_been_told(
    connect: Connect, judge: Authorizer, token: Token
) -> None:
    with connect(judge, token())() as socket:
        socket.recv()
        hold_back(judge)
        judge.revoke(org_id=ORG)
        socket.send("late")

        with pytest.raises(ConnectionClosed) as closed:
            socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 3000


@pytest.mark.parametrize(("ending", "code"), [("expired", 3000), ("revoked", 3000), ("suspended", 3003)])
def test_websocket_is_closed_with_a_reason(
    connect: Connect,
    judge: Authorizer,
    token: Token,
    clock: ManualClock,
    *,
    told: list[Decision],
    ending: str,
    code: int,
) -> None:
    end, reason = ENDINGS[ending]
    with connect(judge, token())() as socket:
        socket.recv()
        assert len(judge.streams) == 1

        end(judge, clock)

        with pytest.raises(ConnectionClosed) as closed:
            socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code
    assert eventually(lambda: len(judge.streams) == 0)
    assert [(each.event, each.refusal and each.refusal.reason) for each in told] == [
        ("decision", None),
        ("stream_ended", reason),
    ]


def test_handshake_that_the_application_does_not_answer_is_refused_in_the_end(
    connect: Connect, judge: Authorizer, token: Token
) -> None:
    begin = connect(judge, token(), "/hesitant")

    def revoke() -> None:
        eventually(lambda: len(judge.streams))
        judge.revoke(org_id=ORG)

    with ThreadPoolExecutor(1) as pool:
        revoking = pool.submit(revoke)
        with pytest.raises(InvalidStatus) as refused:
            begin()
        revoking.result()

    assert refused.value.response.status_code == 401


def test_websocket_too_many_is_refused(
    connect: Connect, new_judge: NewJudge, token: Token, told: list[Decision]
) -> None:
    begin = connect(new_judge(policy=Policy.from_document(METERED)), token())
    with begin() as first:
        first.recv()

        with pytest.raises(InvalidStatus) as refused:
            begin()

    assert refused.value.response.status_code == 429
    assert [each.verdict for each in told] == ["allowed", "denied"]
