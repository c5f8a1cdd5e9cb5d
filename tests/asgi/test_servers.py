"""The door does the same behind another server, over HTTP/1.1 and HTTP/2."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import h2.config
import h2.connection
import h2.events
import hypercorn.asyncio
import hypercorn.config
import pytest
import websockets.sync.client
from websockets.exceptions import ConnectionClosed, InvalidStatus

from authz import Authorizer
from authz.asgi import AuthzMiddleware
from tests.asgi.conftest import ECHO, Token
from tests.asgi.test_streams import Events
from tests.asgi.test_websockets import APP
from tests.doubles import ORG, PATIENCE, eventually
from tests.http.client import Connection, ask, bearer


@contextlib.contextmanager
def served_by_hypercorn(app: Any) -> Iterator[int]:
    """Serve an ASGI application until the end of the block; yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = hypercorn.config.Config()
    port = listener.getsockname()[1]
    # The server closes it.
    config.bind, config.errorlog, config.graceful_timeout = [f"fd://{listener.detach()}"], None, 1
    loop, over, has_begun = asyncio.new_event_loop(), asyncio.Event(), threading.Event()

    async def serve() -> None:
        loop.call_soon(has_begun.set)
        await hypercorn.asyncio.serve(app, config, shutdown_trigger=over.wait, mode="asgi")  # type: ignore[arg-type]

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert has_begun.wait(PATIENCE)
        yield port
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(PATIENCE)
        loop.close()


def test_request_is_judged(judge: Authorizer, token: Token) -> None:
    with served_by_hypercorn(AuthzMiddleware(ECHO, judge)) as port:
        missing, seen = ask(port, "/orders"), ask(port, "/orders", bearer(token()))

    assert (missing.status, missing.json["error"]) == (401, "No token provided")
    assert (seen.json["principal"], seen.json["current"]) == (ORG, ORG)


def test_streamed_response_breaks_off(judge: Authorizer, token: Token) -> None:
    with served_by_hypercorn(AuthzMiddleware(Events().app, judge)) as port, Connection(port) as connection:
        connection.ask("/silent", bearer(token()))
        assert connection.head()[0] == 200
        assert connection.part() == b"tick\n"

        judge.revoke(org_id=ORG)

        assert connection.part() is None


def test_websocket_is_refused_or_closed(judge: Authorizer, token: Token) -> None:
    with served_by_hypercorn(AuthzMiddleware(APP, judge)) as port:
        url = f"ws://127.0.0.1:{port}/chat"
        with pytest.raises(InvalidStatus) as refused:
            websockets.sync.client.connect(url)
        with websockets.sync.client.connect(url, additional_headers=bearer(token())) as opened:
            assert opened.recv() == f"{ORG} {ORG}"
            judge.revoke(org_id=ORG)
            with pytest.raises(ConnectionClosed) as closed:
                opened.recv()

    assert refused.value.response.status_code == 401
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 3000


def test_stream_of_http2_ends_and_others_go_on(judge: Authorizer, token: Token) -> None:
    """Hypercorn forgets the stream without resetting it: the client is sent nothing more."""
    with (
        served_by_hypercorn(AuthzMiddleware(Events().app, judge, public_paths=["/whole"])) as port,
        socket.create_connection(("127.0.0.1", port), PATIENCE) as connection,
    ):
        client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="ascii"))
        client.initiate_connection()
        pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost")]
        client.send_headers(1, [*pseudo, (":path", "/silent"), *bearer(token())], end_stream=True)
        connection.sendall(client.data_to_send())
        seen = _until(connection, client, h2.events.DataReceived)

        judge.revoke(org_id=ORG)
        assert eventually(lambda: len(judge.streams) == 0)
        client.send_headers(3, [*pseudo, (":path", "/whole")], end_stream=True)
        connection.sendall(client.data_to_send())
        answer = _until(connection, client, h2.events.ResponseReceived | h2.events.DataReceived)

    assert seen.data == b"tick\n"
    assert (answer.stream_id, dict(answer.headers)[":status"]) == (3, "200")


def _until(connection: socket.socket, client: h2.connection.H2Connection, kind: Any) -> Any:
    while True:
        data = connection.recv(65536)
        assert data, "the connection is closed"
        events = client.receive_data(data)
        connection.sendall(client.data_to_send())
        found = [event for event in events if isinstance(event, kind)]
        if found:
            return found[0]
