"""Connections of proxies, byte by byte: what is answered, what is not, and what one of them can cost."""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h11
import pytest

from authz.demo.issuer.signing import SigningKey
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.runtime.network.unix_sockets import Permissions
from authz.server.forward_auth import connection, listener
from authz.server.forward_auth.check import ForwardAuth
from authz.server.forward_auth.connection import MAX_HEAD_BYTES, MAX_LINES
from authz.server.forward_auth.listener import HttpListener
from authz.server.serving.health import STOPPING
from tests.doubles import AUDIENCE, ISSUER, PATIENCE, FakeIssuer, ManualClock, eventually, jwks, m2m_claims
from tests.interceptors.servers import Loop
from tests.server.forward_auth.http1 import Client, ask, head
from tests.server.forward_auth.site import asked_over_http


@pytest.fixture(scope="module")
def judge(ec_key: SigningKey) -> Authorizer:
    clock = ManualClock().clock
    return Authorizer(Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(ec_key), algorithms=["ES256"], clock=clock))


@pytest.fixture(scope="module")
def address(judge: Authorizer) -> Iterator[str]:
    with asked_over_http(judge, "none") as address:
        yield address


@pytest.fixture(scope="module")
def good(ec_key: SigningKey) -> str:
    return f"Authorization: Bearer {ec_key.sign(m2m_claims())}"


# ---- What is answered ----


def test_a_connection_carries_many_questions(address: str, good: str) -> None:
    with Client(address) as client:
        statuses = []
        for headers in ([good], [], [good], []):
            client.send(head("/v1", *headers))
            statuses.append(client.read().status)

    assert statuses == [200, 401, 200, 401]


def test_questions_that_come_together_are_answered_in_turn(address: str, good: str) -> None:
    with Client(address) as client:
        client.send(head("/v1", good) + head("/v1") + head("/v1", good))

        assert [client.read().status for _ in range(3)] == [200, 401, 200]


def test_a_question_may_come_byte_by_byte(address: str, good: str) -> None:
    with Client(address) as client:
        for byte in head("/v1", good):
            client.send(bytes([byte]))

        assert client.read().status == 200


def test_an_answer_to_head_has_no_body(address: str) -> None:
    with Client(address) as client:
        client.send(head("/v1", verb="HEAD"))
        assert client.read(has_no_body=True).one("content-length") != "0"
        client.send(head("/v1"))
        assert client.read().status == 401


def test_an_old_proxy_gets_its_answer_and_the_end(address: str, good: str) -> None:
    with Client(address) as client:
        client.send(f"GET /v1 HTTP/1.0\r\n{good}\r\n\r\n".encode())

        assert client.read().status == 200
        assert client.rest() == b""


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["Content-Length: 5"], b"hello"),
        # nginx announces the body of the request and sends none, unless it is told not to.
        (["Content-Length: 5"], b""),
        (["Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n"),
        (["Transfer-Encoding: chunked"], b""),
        (["Content-Length: 5", "Expect: 100-continue"], b""),
        (["Content-Length: 1000000000"], b"x" * 100_000),
    ],
)
def test_no_body_is_waited_for_or_taken_for_a_question(
    address: str, good: str, headers: list[str], body: bytes
) -> None:
    with Client(address) as client:
        client.send(head("/v1", good, *headers) + body)

        response = client.read()
        assert (response.status, response.one("connection")) == (200, "close")
        # What comes after it could be a body in the shape of a question.
        with contextlib.suppress(OSError):
            client.send(head("/v1", good))
        assert client.rest() == b""


@pytest.mark.parametrize(
    "more", [["Upgrade: websocket", "Connection: Upgrade"], ["Upgrade: h2c", "Connection: Upgrade"]]
)
def test_no_protocol_is_changed(address: str, good: str, more: list[str]) -> None:
    with Client(address) as client:
        client.send(head("/v1", good, *more))

        assert client.read().status == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1 HTTP/1.1\r\n\r\n",
        b"GET /v1 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
        b"GET /v1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnope\r\n",
        b"GET /v1 HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        b"GET /v1 HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n",
        b"GET /v1 \xff HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_what_is_no_question_is_refused_and_ends_the_connection(address: str, sent: bytes) -> None:
    with Client(address) as client:
        client.send(sent)

        statuses = re.findall(rb"HTTP/1.1 (\d+) ", client.rest())
        assert {*statuses} <= {b"401", b"403"}
        assert statuses


# ---- What one may cost ----


def test_a_head_may_be_as_long_as_any_proxy_sends(address: str, good: str) -> None:
    padding = [f"X-{number}: {'x' * 1000}" for number in range(MAX_HEAD_BYTES // 1100)]

    assert ask(address, "/v1", good, *padding).status == 200


@pytest.mark.parametrize("ends", [True, False], ids=["whole", "without an end"])
def test_a_head_that_is_too_long_is_refused_before_it_has_come(address: str, *, ends: bool) -> None:
    with Client(address) as client:
        client.send(head("/v1", "X: " + "x" * 4 * MAX_HEAD_BYTES)[: None if ends else -4])

        assert client.read().status in (401, 403)


@pytest.mark.parametrize("ends", [True, False], ids=["whole", "without an end"])
def test_too_many_headers_are_refused_before_they_are_parsed(
    address: str, good: str, monkeypatch: pytest.MonkeyPatch, *, ends: bool
) -> None:
    parsed: list[object] = []
    monkeypatch.setattr(h11.Connection, "next_event", parsed.append)
    with Client(address) as client:
        client.send(head("/v1", good, *["a:"] * MAX_LINES)[: None if ends else -2])

        assert client.read().status == 403
    assert parsed == []


def test_as_many_headers_as_may_be_are_parsed(address: str, good: str) -> None:
    # And the request line, the host, the token, the end of the connection, and the empty line.
    assert ask(address, "/v1", good, *["a:"] * (MAX_LINES - 5)).status == 200
    assert ask(address, "/v1", good, *["a:"] * (MAX_LINES - 4)).status == 403


def test_the_largest_questions_take_little_time(judge: Authorizer, good: str) -> None:
    """The bound is a hundred times what it takes alone, because other tests run meanwhile."""
    heads = [
        head("/v1", good, *["a:"] * (MAX_LINES - 5)),
        head("/v1", good, *[f"x-{number}:{'a ' * 110}" for number in range(250)]),
        head("/v1", good, "x:" + " \t" * (MAX_HEAD_BYTES // 2 - 500)),
        head("/" + "%41" * 2600, good),
        head("/" + "a/" * 4000, good),
    ]

    async def story() -> list[float]:
        seconds = []
        server = HttpListener(ForwardAuth(judge, "none"), "127.0.0.1:0")
        try:
            for sent in heads:
                transport = _Transport()
                one = connection.Connection(ForwardAuth(judge, "none"), server)
                one.connection_made(transport)
                began = time.process_time()
                one.data_received(sent)
                seconds.append(time.process_time() - began)
                assert transport.written.startswith(b"HTTP/1.1 ")
                one.connection_lost(None)
        finally:
            await server.stop(0)
        return seconds

    assert max(asyncio.run(story())) < 0.2


class _Transport(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        """Do nothing: the test ends it."""


@pytest.mark.parametrize("sent", [b"GET /v1 HT", b"GET /v1 HTTP/1.1\r\nHost: a\r\n", b"G"])
def test_half_a_question_holds_no_connection(judge: Authorizer, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.05)
    with asked_over_http(judge, "none") as address, Client(address) as client:
        client.send(sent)

        assert client.rest() == b""


def test_drops_of_a_question_hold_no_connection(judge: Authorizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.05)
    sent = 0
    with asked_over_http(judge, "none") as address, Client(address) as client, contextlib.suppress(ConnectionError):
        client.send(b"GET /v1 HTTP/1.1\r\nX: ")
        while True:
            client.send(b"x")
            sent += 1
            time.sleep(0.001)

    # Far less than a head may have.
    assert sent < MAX_HEAD_BYTES // 4


def test_a_connection_without_questions_is_closed_only_after_long(
    judge: Authorizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "IDLE_SECONDS", 0.05)
    with asked_over_http(judge, "none") as address, Client(address) as client:
        client.send(head("/v1"))
        assert client.read().status == 401

        assert client.rest() == b""


def test_a_flood_behind_a_question_is_not_parsed(address: str, good: str) -> None:
    with Client(address) as client:
        client.send(head("/v1", good) + head("/v1", good, *["a:"] * 10_000))

        assert {*re.findall(rb"HTTP/1.1 (\d+) ", client.rest())} <= {b"200", b"403"}


def test_answers_that_are_not_read_hold_up_their_own_connection_only(
    judge: Authorizer, good: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    with asked_over_http(judge, "none") as address, Client(address) as client, Client(address) as other:
        with contextlib.suppress(ConnectionError):
            while True:
                client.send(head("/v1", good) * 10)
        other.send(head("/v1", good))
        assert other.read().status == 200


def test_one_connection_too_many_costs_the_one_that_was_not_used_for_longest(
    judge: Authorizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "MAX_CONNECTIONS", 2)
    with asked_over_http(judge, "none") as address, Client(address) as first, Client(address) as second:
        for client in (first, second, first):
            client.send(head("/v1"))
            client.read()
        with Client(address) as third:
            third.send(head("/v1"))
            assert third.read().status == 401
        assert second.rest() == b""
        first.send(head("/v1"))
        assert first.read().status == 401


# ---- Checks that wait ----


class Waiting:
    """A server whose checks wait for a key until the issuer answers."""

    def __init__(self, judge: Authorizer, issuer: FakeIssuer, key: SigningKey) -> None:
        self.loop = Loop()
        self.check = ForwardAuth(judge, "none")
        self._issuer, self._key = issuer, key
        self.question = head("/v1", f"Authorization: Bearer {key.sign(m2m_claims())}")

    async def _start(self) -> HttpListener:
        server = HttpListener(self.check, "127.0.0.1:0", permissions=Permissions())
        await server.start()
        return server

    @contextlib.contextmanager
    def serving(self) -> Iterator[HttpListener]:
        self._issuer.transport.hang()
        server = self.loop.run(self._start())
        try:
            yield server
        finally:
            self.release()
            self.loop.run(server.stop(0))
            self.loop.close()

    def begin(self, client: Client) -> None:
        before = self.check.waiting.count
        client.send(self.question)
        assert eventually(lambda: self.check.waiting.count > before)

    def release(self) -> None:
        if self._key not in self._issuer.keys:
            self._issuer.keys.append(self._key)
        self._issuer.transport.release()


@pytest.fixture
def waiting(issuer: FakeIssuer, new_verifier: Callable[..., Verifier], other_key: SigningKey) -> Waiting:
    verifier = new_verifier()
    verifier.warm_up(0)
    return Waiting(Authorizer(verifier), issuer, other_key)


def test_a_check_that_waits_keeps_no_other_waiting(waiting: Waiting) -> None:
    with waiting.serving() as server, Client(server.address) as slow, Client(server.address) as quick:
        waiting.begin(slow)
        quick.send(head("/v1"))
        assert quick.read().status == 401

        waiting.release()

        assert slow.read().status == 200


@pytest.mark.parametrize(("behind", "status"), [([], 401), (["a:"] * 300, 403)], ids=["a question", "a flood"])
def test_what_comes_behind_a_question_that_waits_is_answered_after_it(
    waiting: Waiting, behind: list[str], status: int
) -> None:
    with waiting.serving() as server, Client(server.address) as client:
        waiting.begin(client)
        client.send(head("/v1", *behind))
        waiting.release()

        assert [client.read().status for _ in range(2)] == [200, status]


@pytest.mark.parametrize("is_half", [True, False], ids=["sends no more", "has gone"])
def test_a_proxy_that_gives_up_gives_its_place_back(waiting: Waiting, *, is_half: bool) -> None:
    with waiting.serving() as server:
        with Client(server.address) as client:
            waiting.begin(client)
            if is_half:
                client.end()
                waiting.release()
                assert client.read().status == 200
                assert client.rest() == b""
        assert eventually(lambda: waiting.check.waiting.count == 0)


# ---- The end ----


def test_running_checks_are_answered_before_the_end(waiting: Waiting) -> None:
    with (
        waiting.serving() as server,
        Client(server.address) as client,
        Client(server.address) as idle,
        ThreadPoolExecutor(1) as pool,
    ):
        idle.send(head("/v1"))
        idle.read()
        waiting.begin(client)
        stopping = pool.submit(waiting.loop.run, server.stop(PATIENCE))
        assert idle.rest() == b""
        assert not stopping.done()
        with pytest.raises(ConnectionRefusedError):
            Client(server.address)

        waiting.release()

        response = client.read()
        assert (response.status, response.one("connection"), client.rest()) == (200, "close", b"")
        stopping.result(PATIENCE)


def test_checks_that_take_longer_than_the_grace_get_no_answer(waiting: Waiting) -> None:
    with waiting.serving() as server, Client(server.address) as client:
        waiting.begin(client)

        waiting.loop.run(server.stop(0))

        assert client.rest() == b""


def test_while_it_drains_each_connection_ends_with_its_next_answer(waiting: Waiting) -> None:
    with waiting.serving() as server, Client(server.address) as client:
        client.send(head("/v1"))
        assert client.read().one("connection") == ""

        waiting.loop.run(server.tell_health(STOPPING))

        client.send(head("/v1"))
        assert client.read().one("connection") == "close"
        assert client.rest() == b""
        assert ask(server.address, "/v1").status == 401


def test_a_unix_socket_is_its_owners_and_goes_with_the_server(judge: Authorizer, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with asked_over_http(judge, "none", f"unix:{path}") as address:
        assert ask(address, "/v1").status == 401
        assert path.stat().st_mode & 0o777 == 0o600

    assert not path.exists()
