"""A policy at the doors of gRPC: who may not call never reaches a handler."""

from collections.abc import Iterable
from typing import Any

import grpc
import pytest

from authz import Authorizer, Policy, Verifier
from authz.policy.protos.access import Access
from authz.policy.protos.declared import Protos
from authz.runtime.text.document import Document
from tests.certificates import Authority, uris
from tests.doubles import ORG
from tests.interceptors.client import bearer
from tests.interceptors.conftest import Reach, ServeAll
from tests.interceptors.service import KINDS, expected_replies, method, public_method
from tests.interceptors.ways import PLAIN, TLS, Client, Way

PARTNER = "spiffe://partner.example/job"


def policy(*allow_rules: Any, **organization: Any) -> Policy:
    return Policy.from_document(
        {
            "name": "p",
            "allow_rules": [{"name": f"r{number}", **rule} for number, rule in enumerate(allow_rules or [{}])],
            "public": [public_method("unary_unary")],
            "organizations": {ORG: {"tenant": "tenant-7", **organization}},
        }
    )


def test_who_is_allowed_is_known_with_the_tenant(
    serve_all: ServeAll, verifier: Verifier, kind: str, token: str
) -> None:
    served = serve_all(judge=Authorizer(verifier, policy=policy({"source": {"organizations": [ORG]}})))
    forged = ("x-org-tenant", "forged")

    outcome = served.call(kind, metadata=[forged, *bearer(token), forged, ("x_org_tenant", "forged")])

    assert outcome.messages == expected_replies(kind, ORG.encode())
    sight = served.witness.sight
    assert (sight.principal.tenant, sight.values("x-org-tenant")) == ("tenant-7", ["tenant-7"])
    assert "forged" not in repr(sight.metadata)


def declared(**access: Any) -> Policy:
    """Return the policy of a .proto that asks the same of every kind."""
    protos = Protos({method(kind): Access(**access) for kind in KINDS}, "tests")
    return Policy(Document({"name": "p"}), protos)


@pytest.mark.parametrize(
    ("judged_by", "reason"),
    [
        pytest.param(declared(groups=frozenset({"paying"})), "POLICY_DENIED", id="not-as-declared"),
        pytest.param(declared(scopes=(frozenset({"admin"}),)), "INSUFFICIENT_SCOPE", id="scopes-declared"),
        pytest.param(policy({"request": {"paths": ["/others/*"]}}), "POLICY_DENIED", id="not-allowed"),
        pytest.param(policy(status="suspended"), "ORGANIZATION_SUSPENDED", id="suspended"),
    ],
)
def test_who_is_refused_reaches_nothing(
    serve_all: ServeAll,
    verifier: Verifier,
    kind: str,
    token: str,
    least: Iterable[bytes],
    *,
    judged_by: Policy,
    reason: str,
) -> None:
    served = serve_all(judge=Authorizer(verifier, policy=judged_by))

    outcome = served.call(kind, metadata=bearer(token), requests=least)

    assert (outcome.code, outcome.details, outcome.reason) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "Permission denied",
        reason,
    )
    assert (served.witness.sights, served.witness.parsed) == ([], [])


def test_policy_on_trial_refuses_nobody(serve_all: ServeAll, verifier: Verifier, token: str) -> None:
    nothing = policy({"request": {"paths": ["/others/*"]}})
    authorizer = Authorizer(verifier, policy=policy(), shadow=nothing)
    served = serve_all(judge=authorizer)

    outcome = served.call("unary_unary", metadata=bearer(token))

    assert outcome.messages == expected_replies("unary_unary", ORG.encode())
    assert authorizer.shadow.differences == {"allowed_to_denied": 1}


def test_who_lacks_a_declared_scope_is_told_which(
    serve_all: ServeAll, verifier: Verifier, kind: str, token: str, least: Iterable[bytes]
) -> None:
    judged_by = declared(scopes=(frozenset({"ledger:close", "ledger:write"}), frozenset({"admin"})))
    served = serve_all(judge=Authorizer(verifier, policy=judged_by))

    outcome = served.call(kind, metadata=bearer(token), requests=least)

    challenge = 'Bearer realm="api", error="insufficient_scope", scope="ledger:close ledger:write"'
    assert outcome.trailers["www-authenticate"] == challenge


def test_public_methods_of_the_policy_need_no_token(serve_all: ServeAll, verifier: Verifier) -> None:
    served = serve_all(judge=Authorizer(verifier, policy=policy()))

    outcome = served.call("unary_unary", public_method("unary_unary"), metadata=[("x-org-tenant", "forged")])

    assert outcome.messages == [b"anonymous"]
    assert served.witness.sight.values("x-org-tenant") == []


def test_principals_are_those_of_the_certificate(
    reach: Reach, verifier: Verifier, authority: Authority, kind: str, token: str
) -> None:
    """Known from the handler's context only, so that the door has to ask once more."""
    partners = {"source": {"principals": [PARTNER]}}
    anybody_by_tls = {"source": {"principals": [""]}, "request": {"paths": ["*/unary_unary"]}}
    server = reach(Authorizer(verifier, policy=policy(partners, anybody_by_tls)))
    partner, stranger = (
        Client(Way.MUTUAL_TLS, authority.issue(*uris(name))) for name in (PARTNER, "spiffe://stranger.example/job")
    )

    codes = {
        name: server.call(client, kind, metadata=bearer(token)).code.name
        for name, client in {"partner": partner, "stranger": stranger, "tls": TLS, "plain": PLAIN}.items()
    }

    assert codes == {
        "partner": "OK",
        "stranger": "PERMISSION_DENIED",
        "tls": "OK" if kind == "unary_unary" else "PERMISSION_DENIED",
        "plain": "PERMISSION_DENIED",
    }
