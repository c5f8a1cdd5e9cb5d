"""A refusal is the same through every server for WSGI as through one for ASGI: status, headers and bytes."""

from collections.abc import Callable
from typing import Any

import pytest

from authz import Authorizer, Policy, Verifier
from authz.asgi import AuthzMiddleware as AsgiMiddleware
from authz.demo.issuer.signing import SigningKey
from authz.wsgi import AuthzMiddleware
from tests.asgi.conftest import ECHO, Token
from tests.doubles import ManualClock, jwks
from tests.http.client import Headers, ask, bearer
from tests.http.serving import served
from tests.wsgi.conftest import Serve, echo

POLICY = {
    "name": "rules",
    "allow_rules": [
        {"name": "scoped", "source": {"scopes": ["admin"]}, "request": {"paths": ["/scoped"]}},
        {"name": "metered", "request": {"paths": ["/metered*"]}},
    ],
    "default_quota": "none",
    "quotas": {"none": {"requests_per_second": 0.001, "burst": 1}},
}
KINDS = ["", "application/json", "application/grpc", "application/grpc-web+proto", "application/connect+proto"]


@pytest.fixture
def judges(new_verifier: Callable[..., Verifier], ec_key: SigningKey) -> Callable[[], Authorizer]:
    """Return a function that builds equal judges, whose quotas are used up by one call."""
    return lambda: Authorizer(new_verifier(jwks=jwks(ec_key)), policy=Policy.from_document(POLICY))


Requests = list[tuple[str, str, Headers]]


@pytest.fixture
def requests(token: Token, clock: ManualClock) -> Requests:
    """Return a request for each refusal, with its reason."""
    good = token()
    return [
        ("TOKEN_MISSING", "/orders", []),
        ("TOKEN_MISSING", "/orders%0a", []),
        ("TOKEN_MALFORMED", "/orders", bearer("a.b c")),
        ("TOKEN_EXPIRED", "/orders", bearer(token(exp=int(clock.now) - 60))),
        ("CLAIM_INVALID", "/orders", bearer(token(aud="other"))),
        ("POLICY_DENIED", "/orders", bearer(good)),
        # With the scope that is missing.
        ("POLICY_DENIED", "/scoped", bearer(good)),
        ("QUOTA_EXCEEDED", "/metered", bearer(good)),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_refusals_are_the_same(
    serve: Serve, server: str, judges: Callable[[], Authorizer], requests: Requests, kind: str
) -> None:
    port = serve(AuthzMiddleware(echo, judges()), server)
    with served(AsgiMiddleware(ECHO, judges())) as other:
        _, metered, good = requests[-1]
        assert [ask(one, metered, good).status for one in (port, other)] == [200, 200]
        for reason, target, headers in requests:
            sent: dict[str, Any] = {"headers": [*headers, ("content-type", kind)] if kind else headers, "verb": "POST"}
            ours, theirs = ask(port, target, **sent), ask(other, target, **sent)

            assert ours.ours == theirs.ours
            assert kind not in ("", "application/json") or ours.reason == reason
