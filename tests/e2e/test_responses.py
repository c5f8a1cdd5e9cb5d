"""What a real Envoy makes of each answer, and of each way to ask for it."""

from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import unquote

import grpc
import pytest

from authz.call.metadata import TrustedMetadata
from authz.errors import (
    AuthzError,
    InternalError,
    KeySetUnavailableError,
    PermissionDeniedError,
    ResourceExhaustedError,
    TokenExpiredError,
)
from tests.doubles import ORG
from tests.e2e import http1
from tests.e2e.mesh import OPEN_PREFIX, PUBLIC, PUBLIC_CALL, Mesh, Seen
from tests.envoy.check.messages import sentence
from tests.interceptors.client import Outcome, bearer, call
from tests.interceptors.servers import channel_to

CALL = "/tests.Guarded/Call"
FORGED = "org_01JYFORGED0000000000000000"

Sign = Callable[..., str]
Entries = list[tuple[str, str]]


# ---- Denials, with and without failure_mode_allow ----


class Row(NamedTuple):
    error: AuthzError
    code: grpc.StatusCode
    http_status: int
    message: str
    header: str
    """What else the caller gets."""


ROWS = {
    "401": Row(TokenExpiredError(), grpc.StatusCode.UNAUTHENTICATED, 401, "Invalid token", "www-authenticate"),
    "403": Row(
        PermissionDeniedError(), grpc.StatusCode.PERMISSION_DENIED, 403, "Permission denied", "www-authenticate"
    ),
    # Left alone Envoy makes UNAVAILABLE of it.
    "429": Row(ResourceExhaustedError(), grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "Quota exceeded", "retry-after"),
    "503": Row(
        KeySetUnavailableError(retry_after=7),
        grpc.StatusCode.UNAVAILABLE,
        503,
        "Authorization is unavailable",
        "retry-after",
    ),
    # Left alone Envoy makes UNKNOWN of it.
    "500": Row(InternalError(), grpc.StatusCode.INTERNAL, 500, "Internal error", ""),
}


@pytest.mark.parametrize("listener", ["told", "told_lenient"])
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_denial_stays_shut_whatever_failures_may_do(mesh: Mesh, sign: Sign, listener: str, row: Row) -> None:
    mesh.judge.error = row.error
    target: str = getattr(mesh, listener)
    token = bearer(sign())
    with channel_to(target) as channel:
        over_grpc = call(channel, "unary_unary", CALL, metadata=token)
    over_http = http1.get(target, "/accounts", headers=token)

    assert (over_grpc.code, over_grpc.details, over_grpc.messages) == (row.code, row.message, [])
    assert over_http.status == row.http_status
    assert sentence(over_http.json) == (row.code.name.lower(), row.message)
    for headers in (over_grpc.trailers, over_http.headers):
        assert {"www-authenticate", "retry-after"} & headers.keys() == ({row.header} if row.header else set())
    # For gRPC's retry policies only.
    assert ("grpc-retry-pushback-ms" in over_grpc.trailers) is (row.header == "retry-after")
    assert "grpc-retry-pushback-ms" not in over_http.headers


# ---- The two ways in which Envoy asks ----

REQUESTS: dict[str, Callable[[str], Entries]] = {
    "token": lambda token: [("authorization", f"Bearer {token}")],
    "scheme-in-capitals": lambda token: [("authorization", f"BEARER {token}")],
    "none": lambda _: [],
    "malformed": lambda _: [("authorization", "Bearer opaque-token")],
    "two-tokens": lambda token: [("authorization", f"Bearer {token}")] * 2,
    "two-in-one": lambda token: [("authorization", f"Bearer {token},Bearer {token}")],
    "token-and-basic": lambda token: [("authorization", f"Bearer {token}"), ("authorization", "Basic YTpi")],
    "empty-first": lambda token: [("authorization", ""), ("authorization", f"Bearer {token}")],
    "empty-last": lambda token: [("authorization", f"Bearer {token}"), ("authorization", "")],
    "forged": lambda token: [("x-org-id", FORGED), ("authorization", f"Bearer {token}"), ("x-org-id", FORGED)],
    "forged-only": lambda _: [("x-org-id", FORGED)],
    "two-of-another-kind": lambda token: [("x-trace", "1"), ("authorization", f"Bearer {token}"), ("x-trace", "2")],
}
# An empty header beside another of its name is lost in Envoy, to us and to the upstream; in process it is a second one.
GOOD = {"token", "scheme-in-capitals", "empty-first", "empty-last", "forged", "two-of-another-kind"}


class Asking(NamedTuple):
    """A listener that shows headers as bytes, one by one, and one that shows them as text, joined."""

    raw: str
    joined: str


@pytest.fixture(scope="module")
def asking(mesh: Mesh) -> Asking:
    return Asking(mesh.target, mesh.joined)


@pytest.fixture(scope="module")
def channels(asking: Asking) -> Iterator[list[grpc.Channel]]:
    with channel_to(asking.raw) as raw, channel_to(asking.joined) as joined:
        yield [raw, joined]


def known(seen: Seen) -> dict[str, list[str]]:
    return {name: seen.values(name) for name in seen.names if name in TrustedMetadata().reserved}


def whole(outcome: Outcome) -> tuple[object, ...]:
    trailers = {name: outcome.trailers.get(name) for name in ("www-authenticate", "grpc-status-details-bin")}
    return outcome.code, outcome.details, trailers, [known(Seen.of(message)) for message in outcome.messages]


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("method", [CALL, PUBLIC_CALL, f"{CALL}?x=1"])
def test_both_ways_to_ask_have_the_same_verdict(
    channels: list[grpc.Channel], sign: Sign, request_: str, method: str
) -> None:
    entries = REQUESTS[request_](sign())
    raw, joined = (call(channel, "unary_unary", method, metadata=entries) for channel in channels)

    assert whole(raw) == whole(joined)
    is_good = method == PUBLIC_CALL or request_ in GOOD
    assert (raw.code is grpc.StatusCode.OK) is is_good
    assert not raw.leaks(FORGED)
    assert all(len(Seen.of(message).values("authorization")) == 1 for message in raw.messages if method != PUBLIC_CALL)


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("path", ["/accounts", PUBLIC])
def test_both_ways_to_ask_have_the_same_verdict_over_http(asking: Asking, sign: Sign, request_: str, path: str) -> None:
    entries = REQUESTS[request_](sign())
    raw, joined = (http1.get(target, path, headers=entries) for target in asking)

    is_good = path == PUBLIC or request_ in GOOD
    assert [raw.status, joined.status] == [200 if is_good else 401] * 2
    if is_good:
        assert known(Seen.of(raw.body)) == known(Seen.of(joined.body))
        assert Seen.of(raw.body).values("x-org-id") == ([] if path == PUBLIC else [ORG])
    else:
        assert (raw.body, raw.headers["www-authenticate"]) == (joined.body, joined.headers["www-authenticate"])
    assert FORGED not in raw.body + joined.body


# ---- Paths that pretend to be public ----

HTTP_TRICKS = [
    f"{PUBLIC}/../accounts",
    f"{PUBLIC}/%2e%2e/accounts",
    f"{PUBLIC}/%252e%252e/accounts",
    f"{PUBLIC}%2f..%2faccounts",
    f"{PUBLIC}/..;/accounts",
    f"{PUBLIC}/..;x=1/accounts",
    f"{PUBLIC};/../accounts",
    f"{PUBLIC};x=1",
    f"{PUBLIC}/.;/../accounts",
    f"/accounts/..{PUBLIC}/../accounts",
    f"/accounts/..;{PUBLIC}",
    f"/{PUBLIC}/../accounts",
    f"//{PUBLIC}",
    f"{PUBLIC}//",
    f"{PUBLIC}/.",
    f"{PUBLIC}\\..\\accounts",
    f"{PUBLIC}%5c..%5caccounts",
    "/%70ublic/../accounts",
    f"{PUBLIC}?/../accounts",
    f"{PUBLIC}%3f/../../accounts",
    f"{PUBLIC}#/../accounts",
    f"http://public.example{PUBLIC}/../accounts",
    f"{PUBLIC}/../accounts?{PUBLIC}",
    "/./accounts",
    "//accounts",
    "///public/../accounts",
    f"{PUBLIC}/.%2e/accounts",
    f"{PUBLIC}/..%2faccounts",
    "/accounts?/../public",
    "/accounts;/../public;x",
    f"{PUBLIC}/",
    PUBLIC.upper(),
    f"{PUBLIC}%00",
    f"{PUBLIC}%20",
    f"{PUBLIC}/%2e%2e%5caccounts",
]


@pytest.mark.parametrize("path", HTTP_TRICKS)
def test_without_a_token_only_the_public_path_itself_is_served(asking: Asking, path: str) -> None:
    for target in asking:
        answer = http1.get(target, path)

        assert answer.status in {200, 307, 400, 401}
        if answer.status == 200:
            assert Seen.of(answer.body).path.partition("?")[0] == PUBLIC


WAYS_OUT = [
    "..",
    "%2e%2e",
    ".%2e",
    "%2E.",
    "..;",
    "..;x=1",
    "%2e%2e;",
    "%2e%2e;x=1",
    "..%3b",
    "..%3Bx",
    ".%2E;",
    "./..",
    ".;/..",
    "/..",
    "x/../..",
    "%252e%252e",
    "..%2f",
    "..%5c",
    "..\\",
]


@pytest.mark.parametrize("way", WAYS_OUT)
def test_route_without_a_check_leads_nowhere_else(asking: Asking, way: str) -> None:
    for target in asking:
        answer = http1.get(target, f"{OPEN_PREFIX}{way}/accounts")

        assert answer.status in {200, 307, 400, 401}
        if answer.status == 200:
            served = Seen.of(answer.body).path
            # As an upstream may read it that decodes once, and one that knows parameters of segments.
            segments = [segment.partition(";")[0] for segment in unquote(served).replace("\\", "/").split("/")]
            assert served.startswith(OPEN_PREFIX)
            assert not {".", ".."} & set(segments)


@pytest.mark.parametrize("way", ["%2e%2e;", "..%3b"])
def test_step_upwards_in_disguise_leads_nowhere_even_with_a_token(asking: Asking, sign: Sign, way: str) -> None:
    for target in asking:
        answers = [
            http1.get(target, f"/{first}/{way}/accounts", headers=bearer(sign())) for first in ("open", "guarded")
        ]

        assert [answer.status for answer in answers] == [403, 403]
        assert not any(answer.body for answer in answers)


GRPC_TRICKS = [
    f"{PUBLIC_CALL}/..{CALL}",
    f"{PUBLIC_CALL}/../..{CALL}",
    f"/tests.Public/..{CALL}",
    f"/tests.Public/..;{CALL}",
    f"{PUBLIC_CALL}%2f..%2f..{CALL}",
    f"/tests.Public%2f..{CALL}",
    f"{PUBLIC_CALL};/../..{CALL}",
    f"{PUBLIC_CALL}%2e",
    f"/{PUBLIC_CALL}/../..{CALL}",
    f"/{CALL}",
    f"{CALL}/",
    f"{CALL}?{PUBLIC_CALL}",
    f"{CALL};{PUBLIC_CALL}",
    f"{PUBLIC_CALL}/",
    PUBLIC_CALL.upper(),
]


@pytest.mark.parametrize("path", GRPC_TRICKS)
def test_without_a_token_no_other_method_is_served(channels: list[grpc.Channel], path: str) -> None:
    for channel in channels:
        outcome = call(channel, "unary_unary", path)

        assert outcome.code is not grpc.StatusCode.OK
        assert outcome.messages == []


@pytest.mark.parametrize("path", [f"/{PUBLIC_CALL}", f"{PUBLIC_CALL}?x={CALL}", f"/tests.Guarded/..{PUBLIC_CALL}"])
def test_public_method_is_public_in_every_spelling_that_envoy_makes_one_of(
    channels: list[grpc.Channel], path: str
) -> None:
    for channel in channels:
        [message] = call(channel, "unary_unary", path).messages

        assert Seen.of(message).path.partition("?")[0] == PUBLIC_CALL
