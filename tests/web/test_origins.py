"""Calls from pages of other origins: preflights, and what a browser may read of a refusal."""

import http.client
from typing import NamedTuple

import pytest

from authz.errors import TokenMissingError
from tests.programs import PATIENCE
from tests.web.conftest import ORIGIN
from tests.web.site import Site

CALL = "/tests.Guarded/Unary"
ALLOW = "access-control-allow-origin"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-grpc-web,connect-protocol-version",
}
GRPC_WEB = {"content-type": "application/grpc-web+proto"}
STREAM = {"content-type": "application/connect+proto"}
JSON = {"content-type": "application/json"}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]

    def list_of(self, name: str) -> set[str]:
        return {each.strip() for each in self.headers[name].split(",")}


def ask(site: Site, method: str, path: str = CALL, **headers: str) -> Answer:
    connection = http.client.HTTPConnection(site.target, timeout=PATIENCE)
    try:
        body = b"\0\0\0\0\0" if method == "POST" else None
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        answer.read()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()})
    finally:
        connection.close()


@pytest.mark.parametrize("path", [CALL, "/accounts/7"])
def test_preflight_is_answered_without_a_token_and_goes_no_further(site: Site, path: str) -> None:
    answer = ask(site, "OPTIONS", path, origin=ORIGIN, **PREFLIGHT)

    assert (answer.status, answer.headers[ALLOW]) == (200, ORIGIN)
    assert answer.list_of("access-control-allow-headers") >= {
        *("authorization", "content-type", "x-grpc-web", "x-user-agent", "grpc-timeout"),
        *("connect-protocol-version", "connect-timeout-ms"),
    }
    assert answer.list_of("access-control-allow-methods") >= {"GET", "POST"}
    assert answer.headers["access-control-max-age"] == "7200"
    assert "access-control-allow-credentials" not in answer.headers
    assert site.seen == []


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no-preflight"),
        pytest.param({"origin": ORIGIN}, id="no-method"),
        pytest.param(PREFLIGHT, id="no-origin"),
        pytest.param({"origin": "https://evil.example", **PREFLIGHT}, id="other-origin"),
        pytest.param({"origin": f"{ORIGIN}.evil.example", **PREFLIGHT}, id="longer"),
        pytest.param({"origin": "http://app.example", **PREFLIGHT}, id="other-scheme"),
        pytest.param({"origin": f"{ORIGIN}:444", **PREFLIGHT}, id="other-port"),
        pytest.param({"origin": "null", **PREFLIGHT}, id="null"),
    ],
)
@pytest.mark.parametrize("kind", [{}, GRPC_WEB, STREAM], ids=["http", "grpc-web", "connect"])
def test_whatever_else_has_that_method_is_checked(site: Site, headers: dict[str, str], kind: dict[str, str]) -> None:
    answer = ask(site, "OPTIONS", **headers, **kind)

    # With these two kinds the refusal is in the answer.
    assert answer.status == (200 if kind else 401)
    assert answer.headers["www-authenticate"] == 'Bearer realm="api"'
    assert "access-control-allow-methods" not in answer.headers
    assert site.seen == []


@pytest.mark.parametrize("kind", [GRPC_WEB, JSON], ids=["grpc-web", "connect"])
def test_browser_may_read_a_refusal(site: Site, kind: dict[str, str]) -> None:
    site.judge.error = TokenMissingError()
    answer = ask(site, "POST", origin=ORIGIN, **kind)

    assert answer.headers[ALLOW] == ORIGIN
    assert answer.list_of("access-control-expose-headers") == {
        *("grpc-status", "grpc-message", "grpc-status-details-bin", "www-authenticate", "retry-after"),
    }
    assert "www-authenticate" in answer.headers


@pytest.mark.parametrize("kind", [GRPC_WEB, JSON], ids=["grpc-web", "connect"])
def test_page_of_another_origin_may_read_nothing(site: Site, token: str, kind: dict[str, str]) -> None:
    for headers in ({}, {"authorization": f"Bearer {token}"}):
        assert ALLOW not in ask(site, "POST", origin="https://evil.example", **kind, **headers).headers


def test_no_cache_gives_one_origin_what_another_was_answered(site: Site, token: str) -> None:
    answer = ask(site, "GET", "/accounts", origin=ORIGIN, authorization=f"Bearer {token}")

    assert (answer.status, answer.headers[ALLOW], answer.headers["vary"]) == (200, ORIGIN, "origin")
