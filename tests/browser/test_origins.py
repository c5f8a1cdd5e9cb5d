"""A page of another origin in a real Chromium: which calls it may make, and what it learns of a refusal."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from authz.demo.issuer.signing import SigningKey
from authz.errors import ResourceExhaustedError
from tests.doubles import m2m_claims
from tests.envoy.check.messages import sentence
from tests.web.site import Site

CALL = """async ([url, kind, token]) => {
  const headers = { 'content-type': kind, 'x-grpc-web': '1', 'connect-protocol-version': '1' };
  if (token) headers.authorization = `Bearer ${token}`;
  try {
    const answer = await fetch(url, { method: 'POST', headers, body: new Uint8Array(5) });
    const names = ['grpc-status', 'grpc-message', 'www-authenticate', 'retry-after'];
    const read = Object.fromEntries(names.map((name) => [name, answer.headers.get(name)]));
    return { status: answer.status, ...read, body: await answer.text() };
  } catch (error) {
    return { failed: error.name };
  }
}"""


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>A page</title>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def origins() -> Iterator[list[str]]:
    """Return the origins of one page: that which may call, and another one."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield [f"http://{host}:{server.server_port}" for host in ("localhost", "127.0.0.1")]
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, ec_key: SigningKey, origins: list[str]) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("origins")
    with Site(folder, ec_key, origins[0]) as site:
        yield site


@pytest.fixture
def good(ec_key: SigningKey) -> str:
    return ec_key.sign(m2m_claims(time.time()))


def call(browser: Browser, origin: str, site: Site, kind: str, token: str = "") -> Any:
    page = browser.new_page()
    try:
        page.goto(f"{origin}/")
        return page.evaluate(CALL, [f"http://{site.target}/tests.Guarded/Unary", kind, token])
    finally:
        page.close()


GRPC_WEB = ["application/grpc-web+proto", "application/grpc-web-text"]


@pytest.mark.parametrize("kind", GRPC_WEB)
def test_page_reads_the_refusal_of_grpc_web(browser: Browser, site: Site, origins: list[str], kind: str) -> None:
    refused = call(browser, origins[0], site, kind, "opaque")

    assert (refused["status"], refused["grpc-status"], refused["grpc-message"]) == (200, "16", "Invalid token")
    assert refused["www-authenticate"].startswith("Bearer")


def test_page_reads_the_refusal_of_connect(browser: Browser, site: Site, origins: list[str]) -> None:
    site.judge.error = ResourceExhaustedError(retry_after=3)
    try:
        refused = call(browser, origins[0], site, "application/json", "opaque")
    finally:
        site.judge.error = None

    assert (refused["status"], refused["retry-after"]) == (429, "3")
    assert sentence(json.loads(refused["body"])) == ("resource_exhausted", "Quota exceeded")


@pytest.mark.parametrize("kind", [*GRPC_WEB[:1], "application/json"])
def test_page_calls_with_a_token(browser: Browser, site: Site, origins: list[str], good: str, kind: str) -> None:
    assert call(browser, origins[0], site, kind, good)["status"] == 200


@pytest.mark.parametrize("kind", [*GRPC_WEB[:1], "application/json"])
def test_page_of_another_origin_does_not_get_so_far(
    browser: Browser, site: Site, origins: list[str], good: str, kind: str
) -> None:
    site.seen.clear()

    assert call(browser, origins[1], site, kind, good) == {"failed": "TypeError"}
    assert site.seen == []
