"""What becomes of verdicts where Envoy is configured in other ways than ours, and what other filters make of them."""

import time
from collections.abc import Callable

import grpc
import pytest

from authz.call.metadata import TrustedMetadata
from authz.demo.issuer.signing import SigningKey
from authz.errors import InternalError
from authz.judge.mesh import UNDECIDED
from tests.doubles import ORG, m2m_claims
from tests.e2e import http1
from tests.e2e.mesh import PUBLIC_CALL, Mesh, Seen
from tests.e2e.variants import ADMITTED, FOREIGN, LIMITED, MISSPELT, NARROWED, SCOPED, UNKNOWN_POLICY
from tests.envoy.check.messages import sentence
from tests.interceptors.client import Outcome, bearer, call
from tests.interceptors.servers import channel_to

CALL = "/tests.Guarded/Call"
FORGED = "org_01JYFORGED0000000000000000"
NAMES = TrustedMetadata().reserved

Sign = Callable[..., str]
Ask = Callable[..., Outcome]


@pytest.fixture(scope="module")
def ask(mesh: Mesh) -> Ask:
    """Return a function that makes a call by a listener, with the token that is given or without one."""

    def ask(listener: str, token: str | None = None, method: str = CALL, *more: tuple[str, str]) -> Outcome:
        with channel_to(mesh.variants[listener]) as channel:
            return call(channel, "unary_unary", method, metadata=[*(bearer(token) if token else ()), *more])

    return ask


def organization(outcome: Outcome) -> list[str]:
    """Return what the upstream was told, if it was reached."""
    return [name for message in outcome.messages for name in Seen.of(message).values("x-org-id")]


# ---- Routes that ask something (context_extensions) ----


def test_route_wants_every_scope_and_says_which(ask: Ask, sign: Sign) -> None:
    lacking = ask("routed", sign(scope="ledger:read ledger:close"), SCOPED)

    assert organization(ask("routed", sign(), SCOPED)) == [ORG]
    assert (lacking.code, lacking.reason) == (grpc.StatusCode.PERMISSION_DENIED, "INSUFFICIENT_SCOPE")
    assert lacking.trailers["www-authenticate"] == (
        'Bearer realm="api", error="insufficient_scope", scope="ledger:read ledger:write"'
    )
    assert ask("routed", None, SCOPED).reason == "TOKEN_MISSING"


@pytest.mark.parametrize(
    ("method", "code", "reason"),
    [
        (NARROWED, grpc.StatusCode.UNAUTHENTICATED, "CLAIM_INVALID"),
        (MISSPELT, grpc.StatusCode.INTERNAL, "INTERNAL"),
        (UNKNOWN_POLICY, grpc.StatusCode.INTERNAL, "INTERNAL"),
    ],
)
def test_route_that_asks_what_no_token_has_is_shut(
    ask: Ask, sign: Sign, method: str, code: grpc.StatusCode, reason: str
) -> None:
    refused = ask("routed", sign(), method)

    assert (refused.code, refused.reason) == (code, reason)


def test_what_a_route_tells_others_asks_nothing(ask: Ask, sign: Sign) -> None:
    assert organization(ask("routed", sign(), FOREIGN)) == [ORG]


def test_public_method_is_not_public_on_a_route_that_asks_something(ask: Ask, sign: Sign) -> None:
    assert ask("routed", None, PUBLIC_CALL).reason == "TOKEN_MISSING"
    assert organization(ask("routed", sign(), PUBLIC_CALL)) == [ORG]


# ---- jwt_authn in front, which has taken the token away (metadata_context) ----


def test_claims_that_jwt_authn_has_verified_name_the_caller(ask: Ask, mesh: Mesh, sign: Sign) -> None:
    over_http = http1.get(mesh.variants["vouched"], headers=bearer(sign()))

    for body in (*ask("vouched", sign()).messages, over_http.body):
        seen = Seen.of(body)
        assert (seen.values("x-org-id"), seen.values("authorization")) == ([ORG], [])


def test_by_default_nothing_that_jwt_authn_has_verified_is_believed(ask: Ask, sign: Sign) -> None:
    assert ask("vouched-in-vain", sign()).reason == "TOKEN_MISSING"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        # Within the minute by which clocks of jwt_authn may differ.
        (lambda: {"iat": int(time.time()) - 330, "exp": int(time.time()) - 30}, "TOKEN_EXPIRED"),
        (lambda: {"sub": "user_01JYPERSON", "sid": "session_01JY"}, "CLAIM_INVALID"),
        (lambda: {"org_id": [ORG]}, "CLAIM_INVALID"),
        (lambda: {"org_id": f"{ORG}\r\nx-org-id: {FORGED}"}, "CLAIM_INVALID"),
    ],
    ids=["expired", "user-token", "organizations", "header-injection"],
)
def test_claims_that_only_jwt_authn_accepts_are_refused(
    ask: Ask, sign: Sign, changes: Callable[[], dict[str, object]], reason: str
) -> None:
    refused = ask("vouched", sign(**changes()))

    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)


def test_nobody_gets_in_whom_jwt_authn_has_not_verified(
    ask: Ask, mesh: Mesh, sign: Sign, other_key: SigningKey
) -> None:
    tokens = {
        "TOKEN_MISSING": None,
        "TOKEN_MALFORMED": "opaque-token",
        "KEY_NOT_FOUND": other_key.sign(m2m_claims(time.time())),
        "CLAIM_INVALID": sign(aud="client_01JYOTHER"),
    }

    for reason, token in tokens.items():
        assert ask("vouched", token, CALL, ("x-org-id", FORGED)).reason == reason
    assert ask("vouched", sign(), CALL, ("authorization", "Basic YTpi")).reason == "TOKEN_MALFORMED"
    assert http1.get(mesh.variants["vouched"], f"/accounts?access_token={sign()}").status == 401


# ---- Filters behind ext_authz, which go by what it tells them ----


def test_rbac_of_envoy_can_go_by_the_organization(ask: Ask, mesh: Mesh, sign: Sign) -> None:
    assert organization(ask("organized", sign(org_id=ADMITTED))) == [ADMITTED]
    assert ask("organized", sign(org_id="org_other")).code is grpc.StatusCode.PERMISSION_DENIED
    assert http1.get(mesh.variants["organized"], headers=bearer(sign(org_id="org_other"))).status == 403
    assert ask("organized").reason == "TOKEN_MISSING"


def test_rate_limits_of_envoy_can_go_by_the_organization(mesh: Mesh, sign: Sign) -> None:
    limited, admitted = (
        [http1.get(mesh.variants["organized"], headers=bearer(sign(org_id=name))).status for _ in range(2)]
        for name in (LIMITED, ADMITTED)
    )

    assert (limited, admitted) == ([200, 429], [200, 200])


# ---- Headers that the server does not get to see ----


@pytest.mark.parametrize("listener", ["blinkered", "blindfolded"])
def test_token_that_envoy_withholds_is_missing(ask: Ask, mesh: Mesh, sign: Sign, listener: str) -> None:
    over_http = http1.get(mesh.variants[listener], headers=bearer(sign()))

    assert ask(listener, sign()).code is grpc.StatusCode.UNAUTHENTICATED
    assert over_http.status == 401


# ---- An answer that comes too late ----


def test_answer_that_comes_too_late_is_unavailable(ask: Ask, mesh: Mesh, sign: Sign) -> None:
    mesh.judge.error = None
    try:
        assert ask("hasty", sign()).code is grpc.StatusCode.UNAVAILABLE
        assert http1.get(mesh.variants["hasty"], headers=bearer(sign())).status == 503
    finally:
        mesh.judge.error = InternalError()


def test_where_failures_are_allowed_an_undecided_request_names_nobody(ask: Ask, mesh: Mesh, sign: Sign) -> None:
    forged = [(name, FORGED) for name in sorted(NAMES) if not name.endswith("-bin")]
    mesh.judge.error = None
    try:
        [message] = ask("hasty-lenient", sign(), CALL, *forged).messages
    finally:
        mesh.judge.error = InternalError()

    assert Seen.of(message).values(UNDECIDED) == ["true"]
    assert not Seen.of(message).names & NAMES


# ---- Bodies, shadows, kinds of content ----


def test_body_that_envoy_sends_along_changes_nothing(ask: Ask, mesh: Mesh, sign: Sign) -> None:
    assert organization(ask("buffering", sign())) == [ORG]
    assert ask("buffering").reason == "TOKEN_MISSING"
    assert http1.get(mesh.variants["buffering"], headers=bearer(sign())).status == 200


def test_shadow_enforces_nothing_and_lets_no_forgery_through(ask: Ask, sign: Sign) -> None:
    assert organization(ask("shadow", sign())) == [ORG]
    # For a rollout: whoever is refused gets through as nobody.
    [message] = ask("shadow", None, CALL, ("x-org-id", FORGED)).messages
    assert not Seen.of(message).names & NAMES


@pytest.mark.parametrize(
    ("kind", "has_grpc_status"),
    [
        ("application/grpc", True),
        ("application/grpc+proto", True),
        ("application/grpc;x=1", False),
        ("Application/GRPC", False),
        ("application/grpc-web", True),
        ("application/grpc-web-text", True),
        ("application/json", False),
    ],
)
def test_refusal_is_worded_for_what_envoy_takes_the_request_for(
    mesh: Mesh, kind: str, *, has_grpc_status: bool
) -> None:
    answer = http1.get(mesh.target, CALL, headers=[("content-type", kind)])

    if has_grpc_status:
        assert (answer.status, answer.headers["grpc-status"], answer.body) == (200, "16", "")
        assert answer.headers["grpc-message"] == "No token provided"
    else:
        assert (answer.status, sentence(answer.json)) == (401, ("unauthenticated", "No token provided"))
        assert "grpc-status" not in answer.headers
