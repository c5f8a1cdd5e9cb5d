"""Proxies whose authorization server is down, silent, broken, or set for another proxy: they let no request pass."""

import contextlib
import socketserver
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import pytest

from authz.demo.issuer.signing import SigningKey
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.server.forward_auth.question import Headers
from tests.doubles import AUDIENCE, ISSUER, jwks, m2m_claims
from tests.programs import PATIENCE
from tests.server.forward_auth.http1 import Response, Upstream, ask
from tests.server.forward_auth.proxies import HEADERS, running
from tests.server.forward_auth.site import asked_over_http

HELD = "/held"
"""The path about which questions get no answer until the test gives one."""


class Holding:
    """A server that refuses every request, but says nothing about those for one path until it is told what."""

    def __init__(self) -> None:
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                if HELD.encode() not in self.request.recv(65_536):
                    self.request.sendall(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    return
                outer.asked.set()
                assert outer._told.wait(PATIENCE)
                with contextlib.suppress(OSError):
                    self.request.sendall(outer._said)

        self.asked, self._told, self._said = threading.Event(), threading.Event(), b""
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def say(self, said: bytes) -> None:
        """Answer with these bytes, and close the connection."""
        self._said = said
        self._told.set()

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            self._told.set()
            self._server.shutdown()
            thread.join()
            self._server.server_close()


ANSWERS = {
    "nothing": b"",
    "half an answer": b"HTTP/1.1 200 OK\r\nx-org-id: org_01JYFORGED0000000000000000\r\n",
    "no HTTP": b"garbage\r\n\r\n",
    "not found": b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
    "an error": b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_without_an_answer_no_request_passes(tmp_path: Path, name: str, answer: str) -> None:
    # How long a proxy waits stands in its configuration; here the server ends it.
    holding = Holding()
    with (
        holding.serving(),
        Upstream() as upstream,
        running(name, tmp_path, holding.address, upstream.address) as address,
        ThreadPoolExecutor(1) as pool,
    ):
        asking = pool.submit(ask, address, HELD)
        assert holding.asked.wait(PATIENCE)
        assert upstream.count == 0
        holding.say(ANSWERS[answer])
        response: Response = asking.result(PATIENCE)

        assert (response.status, upstream.count) == (404 if _passes_on(name, answer) else response.status, 0)
        assert response.status >= 400


def _passes_on(name: str, answer: str) -> bool:
    return answer == "not found" and name != "nginx"


@pytest.mark.parametrize("name", HEADERS)
def test_a_server_that_has_ended_lets_no_request_pass(tmp_path: Path, ec_key: SigningKey, name: str) -> None:
    good = f"Authorization: Bearer {ec_key.sign(m2m_claims())}"
    with Upstream() as upstream, contextlib.ExitStack() as server:
        asked = server.enter_context(asked_over_http(_judge(ec_key), HEADERS[name]))
        with running(name, tmp_path, asked, upstream.address) as address:
            ask(address, "/v1", good)
            before = upstream.count
            server.close()
            response = ask(address, "/v1", good)

        assert response.status in (500, 502, 503)
        assert upstream.count == before


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("headers", get_args(Headers))
def test_a_setting_for_another_proxy_opens_nothing_whatever_a_caller_says(
    tmp_path: Path, ec_key: SigningKey, name: str, headers: Headers
) -> None:
    judge = _judge(ec_key, public_methods=["/public"])
    good = f"Authorization: Bearer {ec_key.sign(m2m_claims())}"
    said = [f"{key}: {value}" for key, value in _SAID[headers].items()]
    with (
        Upstream() as upstream,
        asked_over_http(judge, headers) as asked,
        running(name, tmp_path, asked, upstream.address) as address,
    ):
        before = upstream.count
        for more in ([], said):
            assert ask(address, "/v1", *more).status in (401, 403)
            if headers != HEADERS[name]:
                assert ask(address, "/v1", good, *more).status == 403

        assert upstream.count == before


_SAID: dict[Headers, dict[str, str]] = {
    "original": {"X-Original-Method": "GET", "X-Original-URI": "/public"},
    "forwarded": {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/public"},
    "none": {},
}


def _judge(key: SigningKey, **options: object) -> Authorizer:
    verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(key), algorithms=["ES256"])
    return Authorizer(verifier, **options)  # type: ignore[arg-type]
