"""Callers and upstreams see the same whether Envoy asks every time or repeats answers; and orders count at once."""

import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import grpc
import httpx2
import pytest

from authz.demo.issuer.signing import SigningKey
from tests.doubles import ABSENT
from tests.e2e.remembered import (
    CONDITIONAL,
    DENIED,
    METERED,
    PUBLIC,
    PUBLIC_CALL,
    SCOPED,
    SUSPENDED,
    TENANT,
    Remembered,
    client,
)
from tests.interceptors.client import call
from tests.interceptors.servers import channel_to

FORGED = "org_01JYFORGED0000000000000000"
GUARDED = "/tests.Guarded/Call"
# What differs between any two requests. A refusal that is quicker than the body closes the connection.
OWN = (
    "connection",
    "x-request-id",
    "host",
    "date",
    "x-envoy-upstream-service-time",
    "x-envoy-expected-rq-timeout-ms",
    "server",
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, ec_key: SigningKey) -> Iterator[Remembered]:
    with Remembered(tmp_path_factory.mktemp("memo"), ec_key, remember=300) as stack:
        yield stack


@pytest.fixture(scope="module")
def channels(stack: Remembered) -> Iterator[tuple[grpc.Channel, grpc.Channel]]:
    with channel_to(stack.asked) as asked, channel_to(stack.memo) as memo:
        yield asked, memo


@pytest.fixture(scope="module")
def http() -> Iterator[httpx2.Client]:
    with client() as http:
        yield http


def tokens(stack: Remembered, other: SigningKey) -> dict[str, list[str]]:
    """Return by case what is sent as ``authorization``."""
    now = int(time.time())
    good = stack.sign()
    cases: dict[str, list[str]] = {
        "good": [f"Bearer {good}"],
        "lower-case": [f"bearer {good}"],
        "tenant": [f"Bearer {stack.sign(org_id=TENANT)}"],
        "metered": [f"Bearer {stack.sign(org_id=METERED)}"],
        "suspended": [f"Bearer {stack.sign(org_id=SUSPENDED)}"],
        "without-scopes": [f"Bearer {stack.sign(scope='')}"],
        "writer": [f"Bearer {stack.sign(scope='ledger.write')}"],
        "ends-soon": [f"Bearer {stack.sign(exp=now + 40)}"],
        "bound": [f"Bearer {stack.sign(cnf={'x5t#S256': 'A' * 43})}"],
        "expired": [f"Bearer {stack.sign(iat=now - 900, exp=now - 600)}"],
        "no-organization": [f"Bearer {stack.sign(org_id=ABSENT)}"],
        "person": [f"Bearer {stack.sign(sub='user_01JYPERSON', sid='session_01JY')}"],
        "forged": [f"Bearer {other.sign({'iss': 'x'})}"],
        "missing": [],
        "twice": [f"Bearer {good}"] * 2,
        "two-blanks": [f"Bearer  {good}"],
        "comma": [f"Bearer {good},Bearer {good}"],
        "basic": ["Basic YTpi"],
    }
    return cases


CASES = (
    *("good", "lower-case", "tenant", "metered", "suspended", "without-scopes", "writer", "ends-soon", "bound"),
    *("expired", "no-organization", "person", "forged", "missing", "twice", "two-blanks", "comma", "basic"),
)
MORE: dict[str, list[tuple[str, str]]] = {
    "forged": [("x-org-id", FORGED), ("x-scopes", "admin"), ("x_org_id", FORGED), ("x-org-tenant", "t")],
    "slow": [("x-mode", "slow")],
}
METHODS = (GUARDED, DENIED, CONDITIONAL, SCOPED, PUBLIC_CALL, "/tests.Unknown/Call")
PATHS = ("/accounts", "/accounts/1?x=1", "/denied", PUBLIC, "/nothing")
WAYS: list[tuple[str, str]] = [
    *[("grpc", method) for method in METHODS],
    *[("http", path) for path in PATHS],
    ("grpc-web", GUARDED),
    ("grpc-web", DENIED),
]


class Seen(NamedTuple):
    """What the caller and the upstream saw, without what differs between any two requests."""

    verdict: Any
    caller: Any
    upstream: Any


def of_grpc(channel: grpc.Channel, method: str, headers: list[tuple[str, str]]) -> Seen:
    outcome = call(channel, "unary_unary", method, metadata=headers)
    trailers = {name: value for name, value in outcome.trailers.items() if name not in OWN}
    return Seen(outcome.code, (outcome.details, trailers), [_upstream(message) for message in outcome.messages])


def of_http(http: httpx2.Client, target: str, path: str, headers: list[tuple[str, str]], kind: str = "") -> Seen:
    if kind:
        more = [("content-type", kind)]
        found = http.post(f"http://{target}{path}", headers=[*headers, *more], content=b"\0\0\0\0\0")
        body: Any = found.content
        upstream = _frame(body) if found.status_code == 200 and body[:1] == b"\0" else None
    else:
        found = http.get(f"http://{target}{path}", headers=headers)
        upstream = _upstream(found.content) if b'"headers"' in found.content else None
        body = None if upstream else found.content
    mine = [(name, value) for name, value in found.headers.multi_items() if name not in (*OWN, "content-length")]
    # A refusal of gRPC-Web has the HTTP status 200.
    verdict = found.headers.get("grpc-status", found.status_code)
    return Seen(verdict, (mine, None if upstream else body), upstream)


def _upstream(body: bytes) -> Any:
    seen = json.loads(body)
    return seen["path"], [(name, value) for name, value in seen["headers"] if name not in OWN]


def _frame(body: bytes) -> Any:
    return _upstream(body[5 : 5 + int.from_bytes(body[1:5])])


def may_be_remembered(seen: Seen, case: str, path: str) -> bool:
    """Say whether an answer holds for every call like it."""
    is_yes = seen.verdict in (grpc.StatusCode.OK, 200, grpc.StatusCode.UNIMPLEMENTED)
    is_public = path in (PUBLIC, PUBLIC_CALL)
    return is_yes and (
        (is_public and case not in ("twice", "comma")) or (case != "metered" and path != CONDITIONAL and not is_public)
    )


@pytest.mark.parametrize("case", CASES)
def test_nothing_differs_but_the_hop(
    stack: Remembered,
    channels: tuple[grpc.Channel, grpc.Channel],
    http: httpx2.Client,
    other_key: SigningKey,
    case: str,
) -> None:
    values = tokens(stack, other_key)[case]
    rows = [(*way, more) for more in MORE for way in WAYS]

    def make(target: int, way: str, path: str, more: str) -> Seen:
        headers = [*MORE[more], *[("authorization", value) for value in values]]
        if way == "grpc":
            return of_grpc(channels[target], path, headers)
        kind = "application/grpc-web+proto" if way == "grpc-web" else ""
        return of_http(http, (stack.asked, stack.memo)[target], path, headers, kind)

    asked = {row: make(0, *row) for row in rows}
    for _ in range(2):
        assert {row: make(1, *row) for row in rows} == asked
    before = stack.hops()
    assert {row: make(1, *row) for row in rows} == asked
    hops = stack.hops() - before

    # The third time only what cannot be remembered is asked about.
    assert hops == sum(not may_be_remembered(asked[row], case, row[1]) for row in rows)
    assert FORGED not in str(asked)


def test_the_table_is_large() -> None:
    assert len(CASES) * len(MORE) * len(WAYS) >= 300


def test_a_route_that_asks_for_more_is_asked_about(stack: Remembered, http: httpx2.Client) -> None:
    """Though the same token and path are remembered from another route."""
    token = [("authorization", f"Bearer {stack.sign(jti='more')}")]
    for _ in range(3):
        assert of_http(http, stack.memo, "/accounts", token).verdict == 200
    before = stack.hops()
    assert of_http(http, stack.memo, "/accounts", token).verdict == 200
    assert stack.hops() == before
    assert of_http(http, stack.memo, "/accounts", [*token, ("x-extra", "1")]).verdict == 403
    assert of_http(http, stack.memo, "/accounts", token).verdict == 200
    assert stack.hops() == before + 1
