"""Real proxies in front of the check: nginx, Caddy, Traefik and Envoy, configured as docs/forward-auth.md says."""

import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

import pytest

from authz.call.call import Call
from authz.call.metadata import TrustedMetadata
from authz.call.principal import Principal
from authz.decisions.decision import Decision, Evidence
from authz.demo.issuer.signing import SigningKey
from authz.errors import (
    AuthzError,
    ClaimError,
    InsufficientScopeError,
    InternalError,
    KeySetUnavailableError,
    KeyUndecidedError,
    OverloadedError,
    PermissionDeniedError,
    ResourceExhaustedError,
    TokenExpiredError,
    TokenInactiveError,
    TokenMalformedError,
    TokenMissingError,
)
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.policy import Policy
from authz.runtime.flow import Flow
from tests.doubles import AUDIENCE, CLIENT, ISSUER, ORG, jwks, m2m_claims
from tests.server.forward_auth.http1 import Response, ask
from tests.server.forward_auth.proxies import HEADERS
from tests.server.forward_auth.site import Site, site

FORGED = "org_01JYFORGED0000000000000000"
TENANT = "org_01JYTENANT000000000000000"
POLICY: dict[str, Any] = {
    "name": "proxies",
    "deny_rules": [
        {"name": "closed", "request": {"paths": ["/closed", "/closed/*"]}},
        {"name": "slow", "request": {"headers": [{"key": "x-mode", "values": ["slow"]}]}},
    ],
    "allow_rules": [{"name": "everything-else"}],
    "public": ["/public"],
    "organizations": {TENANT: {"tenant": "tenant-7", "quota": "metered"}},
    "quotas": {"metered": {"requests_per_second": 0.001, "burst": 1000}},
}
TRUSTED = TrustedMetadata()


class Judge(Authorizer):
    """A judge that raises what a test wants, and remembers what it decided."""

    def __init__(self, key: SigningKey) -> None:
        self.decisions: list[Decision] = []
        verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(key), algorithms=["ES256"])
        super().__init__(verifier, policy=Policy.from_document(POLICY), observers=[self.decisions.append])
        self.error: BaseException | None = None

    def authorize(self, call: Call, evidence: Evidence | None = None) -> Flow[Principal]:
        if self.error is not None:
            raise self.error
        return (yield from super().authorize(call, evidence))


@pytest.fixture(scope="module")
def judge(ec_key: SigningKey) -> Judge:
    return Judge(ec_key)


@pytest.fixture(scope="module", params=HEADERS)
def proxy(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def running(judge: Judge, proxy: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(judge, tmp_path_factory.mktemp("proxy"), proxy) as running:
        yield running


@pytest.fixture
def told(judge: Judge) -> Iterator[Judge]:
    judge.decisions.clear()
    yield judge
    judge.error = None


@pytest.fixture(scope="module")
def token(ec_key: SigningKey) -> Callable[..., str]:
    return lambda **changes: f"Authorization: Bearer {ec_key.sign(m2m_claims(time.time(), **changes))}"


Request = Callable[..., Response]


@pytest.fixture
def through(running: Site, proxy: str, told: Judge) -> Request:  # noqa: ARG001 - forgets earlier decisions
    """Return what makes a request through the proxy."""
    return lambda *request, **more: ask(running.doors[proxy], *request, **more)


@pytest.fixture
def through_envoy(running: Site) -> Request:
    return lambda *request, **more: ask(running.doors["envoy"], *request, **more)


def what_is_ours(response: Response) -> Any:
    """Return all that a refused caller gets from us, byte for byte."""
    names = ("content-type", "www-authenticate", "retry-after")
    return response.status, {name: response.one(name) for name in names}, response.body


def told_of_caller(response: Response) -> dict[str, list[str]]:
    """Return what the upstream was told under each trusted name, in whatever spelling."""
    return {name: response.seen.values(name) for name in TRUSTED.names}


REASONS: dict[str, AuthzError] = {
    "missing": TokenMissingError(),
    "malformed": TokenMalformedError(),
    "expired": TokenExpiredError(),
    "claim": ClaimError("aud"),
    "withdrawn": TokenInactiveError(),
    "forbidden": PermissionDeniedError(),
    "scopes": InsufficientScopeError(["ledger:write", "ledger:read"]),
    "quota": ResourceExhaustedError(retry_after=0.25),
    "long quota": ResourceExhaustedError(retry_after=90),
    "no keys": KeySetUnavailableError(retry_after=7),
    "unknown key": KeyUndecidedError(retry_after=3),
    "overloaded": OverloadedError(),
    "internal": InternalError(),
}


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("body", [b"", b"a body"], ids=["GET", "POST"])
def test_refusals_have_the_bytes_that_they_have_through_envoy(
    running: Site, told: Judge, proxy: str, reason: str, body: bytes
) -> None:
    told.error = REASONS[reason]
    verb = "POST" if body else "GET"

    found, wanted = (ask(running.doors[name], "/v1/entries?limit=5", verb=verb, body=body) for name in (proxy, "envoy"))

    if (proxy == "nginx" and reason == "internal") or (proxy == "envoy-http" and wanted.status >= 500):
        # To nginx a 500 of the server and its own are one; to Envoy's HTTP service every 5xx is an outage.
        assert (found.status, found.one("retry-after")) == (503, "")
    else:
        assert what_is_ours(found) == what_is_ours(wanted)


def test_unforeseen_errors_are_closed_and_say_nothing(through: Request, told: Judge) -> None:
    told.error = RuntimeError("a secret detail")

    response = through("/v1/entries")

    assert response.status in (500, 503)
    assert b"secret" not in response.body


def test_the_upstream_is_told_who_calls(through: Request, token: Callable[..., str]) -> None:
    response = through("/v1/entries?limit=5", token(), verb="POST", body=b"a body")

    assert (response.seen.line, response.seen.body) == ("POST /v1/entries?limit=5 HTTP/1.1", "a body")
    found = told_of_caller(response)
    assert found.pop("x-authz-principal-bin") != []
    assert found == {
        "x-org-id": [ORG],
        "x-client-id": [CLIENT],
        "x-scopes": ["ledger:read ledger:write"],
        "x-org-tenant": [],
    }


def test_the_upstream_is_told_the_same_as_behind_envoy(
    through: Request, through_envoy: Request, token: Callable[..., str]
) -> None:
    with_tenant = token(org_id=TENANT)

    found, wanted = (told_of_caller(one("/v1", with_tenant)) for one in (through, through_envoy))

    assert found == wanted
    assert found["x-org-tenant"] == ["tenant-7"]


def test_a_caller_of_whom_there_is_much_to_say_reaches_the_upstream(
    through: Request, token: Callable[..., str]
) -> None:
    scopes = " ".join(f"ledger:{number:03}:{'x' * 20}" for number in range(64))
    assert 1900 < len(scopes) <= 2048

    response = through("/v1", token(scope=scopes, jti="x" * 1500))

    assert told_of_caller(response)["x-scopes"] == [scopes]


def test_every_decision_is_told_once(through: Request, told: Judge, token: Callable[..., str], running: Site) -> None:
    before = running.upstream.count
    through("/v1/a", token())
    through("/closed/b", token())
    through("/v1/c")

    said = [(one.call.method, one.call.verb, one.verdict, one.door) for one in told.decisions]
    assert said == [
        ("/v1/a", "GET", "allowed", "forward_auth"),
        ("/closed/b", "GET", "denied", "forward_auth"),
        ("/v1/c", "GET", "denied", "forward_auth"),
    ]
    assert running.upstream.count == before + 1


@pytest.mark.parametrize("verb", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_the_judge_learns_the_method(through: Request, told: Judge, token: Callable[..., str], verb: str) -> None:
    response = through("/v1", token(), verb=verb, body=b"x" if verb in ("POST", "PUT", "PATCH") else b"")

    assert response.status == 200
    assert [decision.call.verb for decision in told.decisions] == [verb]


# ---- What callers may not send ----

SPELLINGS = [
    *("X-Org-Id", "x-org-id", "X-ORG-ID", "X_Org_Id", "X-Org_Id", "X.Org.Id", "X-Org-Id-Bin", "x_org_id_bin"),
    *("X-Client-Id", "X-Scopes", "X-Org-Tenant", "X-Authz-Principal-Bin", "X_Authz_Principal_Bin"),
    *("Grpc-Metadata-X-Org-Id", "grpcgateway-x-org-id", "Grpc-Metadata-Grpcgateway-X-Scopes"),
]


@pytest.mark.parametrize("is_public", [True, False], ids=["public", "with a token"])
@pytest.mark.parametrize("name", SPELLINGS)
def test_no_forged_header_reaches_the_upstream(
    through: Request, token: Callable[..., str], name: str, *, is_public: bool
) -> None:
    forged = [f"{name}: {FORGED}", f"{name}: {FORGED}"]

    response = through("/public" if is_public else "/v1", *forged, *([] if is_public else [token()]))

    assert response.status in (200, 403)
    assert FORGED.encode() not in response.body
    if response.status == 200 and is_public:
        assert set(map(tuple, told_of_caller(response).values())) == {()}


@pytest.mark.parametrize(
    "connection", ["X-Org-Id", "close, x-scopes", "X-Org-Id, Upgrade", "x-authz-principal-bin", "Authorization"]
)
def test_no_caller_has_the_proxy_drop_who_it_is(through: Request, token: Callable[..., str], connection: str) -> None:
    response = through("/v1", token(), f"Connection: {connection}")

    told = told_of_caller(response) if response.status == 200 else None
    assert told is None or (told["x-org-id"], told["x-scopes"]) == ([ORG], ["ledger:read ledger:write"])


@pytest.mark.parametrize("header", ["X-Original-URI", "X-Forwarded-Uri", "X-Original-URL", "X-Rewrite-URL"])
def test_no_caller_is_judged_by_a_path_of_its_choice(through: Request, told: Judge, header: str, running: Site) -> None:
    before = running.upstream.count

    response = through(
        "/closed",
        f"{header}: /public",
        "X-Original-Method: GET",
        "X-Forwarded-Method: GET",
        f"{header.lower()}: /public",
    )

    assert response.status in (401, 403)
    assert running.upstream.count == before
    assert {decision.call.method for decision in told.decisions} <= {"", "/closed"}


@pytest.mark.parametrize("header", ["X-Original-Method: GET", "X-Forwarded-Method: GET"])
def test_no_caller_is_judged_by_a_method_of_its_choice(
    through: Request, told: Judge, token: Callable[..., str], header: str
) -> None:
    response = through("/v1", token(), header, verb="DELETE")

    assert response.status in (200, 403)
    assert {decision.call.verb for decision in told.decisions if decision.call.method} <= {"DELETE"}


def test_rules_see_the_headers_of_the_caller(through: Request, token: Callable[..., str]) -> None:
    assert [through("/v1", token(), f"X-Mode: {mode}").status for mode in ("slow", "fast")] == [403, 200]


def test_two_tokens_are_none(through: Request, token: Callable[..., str]) -> None:
    # Some proxies answer themselves.
    assert through("/v1", token(), token(org_id=TENANT)).status in (400, 401)


# ---- Paths ----

CLOSED = [
    *("/closed", "/closed?x=1", "/closed/x", "//closed", "/./closed", "/v1/../closed", "/v1/%2e%2e/closed"),
    *("/v1/%2E./closed", "/v1/..;/closed", "/v1/..%3b/closed", "/%63losed", "/closed%2fx", "/v1%2f..%2fclosed"),
    *("/v1\\..\\closed", "/v1/..%5cclosed", "/%2563losed", "/v1/%252e%252e/closed", "/closed#x", "/closed%00"),
    *("http://api.test/closed", "http://api.test//closed", "/closed/", "/public/../closed", "/public/%2e%2e/closed"),
    *("/closed%23", "/closed%3Fx", "/v1/;/../closed", "/v1/.//../closed", "/public;/../closed", "/closed/.."),
    *("/closed;x", "/CLOSED/../closed", "http://api.test", "http://api.test?/closed", "?/closed", "*"),
]
"""Targets that some server might read as the path of the method that the policy denies, and a few odd ones."""


def reads(line: str) -> str:
    """Return the first segment of a path as the most lenient upstream reads it."""
    path = line.split(" ")[1].partition("?")[0].partition("#")[0]
    for _ in range(3):
        path = unquote(path)
    segments: list[str] = []
    for segment in path.replace("\\", "/").split("/"):
        step = segment.partition(";")[0]
        if step == "..":
            del segments[-1:]
        elif step not in ("", "."):
            segments.append(segment)
    return segments[0] if segments else ""


@pytest.mark.parametrize("target", CLOSED)
def test_no_spelling_of_a_path_gets_past_its_rule(
    through: Request, told: Judge, token: Callable[..., str], target: str
) -> None:
    response = through(target, token())

    # A proxy may make a plain path of it first, and then asks about that.
    if response.status == 200 and response.body:
        assert reads(response.seen.line) != "closed"
        [decision] = told.decisions
        assert reads(f"GET {decision.call.method} HTTP/1.1") == reads(response.seen.line)
    else:
        assert response.status in (200, 204, 307, 400, 403, 404, 405)


@pytest.mark.parametrize("target", CLOSED)
def test_no_spelling_of_a_path_is_public_without_being_it(
    through: Request, told: Judge, target: str, running: Site
) -> None:
    before = running.upstream.count

    through(target.replace("closed", "v2"))

    assert running.upstream.count == before
    assert [decision for decision in told.decisions if decision.verdict == "allowed"] == []


@pytest.mark.parametrize(
    "target",
    ["/v1", "/v1/", "/", "/caf%C3%A9", "/a%20b", "/a;b=c", "/v1?u=http://a//b/../c", "/a+b@c:d,e!f$g&h'(i)*j=~"],
)
def test_plain_paths_reach_the_upstream_as_they_are(through: Request, token: Callable[..., str], target: str) -> None:
    assert through(target, token()).seen.line == f"GET {target} HTTP/1.1"


def test_a_head_as_large_as_proxies_take_is_judged(through: Request, token: Callable[..., str]) -> None:
    padding = [f"X-Padding-{number}: {'x' * 1000}" for number in range(12)]

    assert through("/v1", token(), *padding).status == 200
