"""Claims whose signature a proxy has checked: every other rule stays."""

import pytest

from authz.call.call import Call
from authz.call.peer import Peer
from authz.call.requirements import Assurance
from authz.decisions.decision import Evidence
from authz.envoy.check.route import requirements_from
from authz.errors import AuthzError
from authz.issuer.introspection import Introspector
from authz.issuer.verifiers import Verifiers
from authz.judge.authorizer import Authorizer
from authz.judge.mesh import MeshPeers
from authz.runtime.flow import run
from tests.doubles import ABSENT, CLIENT, ISSUER, ORG, FakeTransport, json_response

METHOD = "/authz.demo.v1.Ledger/GetBalance"
OTHER_METHOD = "/authz.demo.v1.Ledger/ListEntries"
THUMBPRINT = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"


def verdict(authorizer, claims, *metadata, **options):
    call = Call(**{"method": METHOD, "metadata": metadata, "verified_claims": claims, **options})
    try:
        return run(authorizer.authorize(call)).org_id
    except AuthzError as error:
        return error.reason


@pytest.fixture
def authorizer(verifier):
    return Authorizer(verifier)


def test_claims_that_a_proxy_has_verified_name_the_caller(authorizer, transport, claims):
    evidence = Evidence()
    principal = run(authorizer.authorize(Call(method=METHOD, metadata=(), verified_claims=claims()), evidence))

    assert (principal.org_id, principal.client_id, principal.key_id) == (ORG, CLIENT, "")
    assert (evidence.source, evidence.principal) == ("proxy", principal)
    assert transport.fetches == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"iss": "https://evil.example"}, "claim_invalid", id="issuer"),
        pytest.param({"iss": ABSENT}, "claim_missing", id="no-issuer"),
        pytest.param({"aud": "client_other"}, "claim_invalid", id="audience"),
        pytest.param({"aud": ABSENT}, "claim_missing", id="no-audience"),
        pytest.param({"exp": 1.0}, "token_expired", id="expired"),
        pytest.param({"exp": ABSENT}, "claim_missing", id="no-exp"),
        pytest.param({"exp": float("nan")}, "claim_invalid", id="exp-nan"),
        pytest.param({"exp": float("inf")}, "claim_invalid", id="exp-infinite"),
        pytest.param({"nbf": 9e10}, "claim_invalid", id="future"),
        pytest.param({"org_id": ABSENT}, "claim_missing", id="no-organization"),
        pytest.param({"org_id": ["org_1"]}, "claim_invalid", id="organizations"),
        pytest.param({"org_id": "org_1\r\n"}, "claim_invalid", id="organization-no-header"),
        pytest.param({"sid": "session_1"}, "claim_invalid", id="user-token"),
        pytest.param({"sub": "user_1", "client_id": ABSENT}, "claim_invalid", id="person"),
        pytest.param({"nonce": "n"}, "claim_invalid", id="id-token"),
        pytest.param({"cnf": {"jkt": "x"}}, "claim_invalid", id="bound-to-a-key"),
        pytest.param({"scope": 'a"'}, "claim_invalid", id="scope"),
    ],
)
def test_every_rule_about_claims_applies(authorizer, claims, changes, reason):
    assert verdict(authorizer, claims(**changes)) == reason


def test_claims_end_with_exp_and_leeway(authorizer, claims, clock):
    payload = claims()
    clock.advance(309.5)
    assert verdict(authorizer, payload) == ORG
    clock.advance(0.5)
    assert verdict(authorizer, payload) == "token_expired"


@pytest.mark.parametrize("options", [{"max_lifetime": 60}, {"org_id_pattern": "org_[0-9]"}, {"audience": "other"}])
def test_the_verifiers_own_rules_apply(new_verifier, claims, options):
    assert verdict(Authorizer(new_verifier(**options)), claims()) == "claim_invalid"


def test_a_rule_about_headers_cannot_be_kept_without_one(new_verifier, claims):
    assert verdict(Authorizer(new_verifier(require_at_jwt=True)), claims()) == "token_malformed"


@pytest.mark.parametrize("value", ["Bearer a.b.c", "Bearer", "", "Basic YTpi", b"Bearer a.b.c"])
def test_a_token_decides_where_there_is_one(authorizer, claims, value):
    assert verdict(authorizer, claims(), ("authorization", value)) == "token_malformed"


def test_a_good_token_decides_against_other_claims(authorizer, ec_key, claims):
    token = ("authorization", f"Bearer {ec_key.sign(claims(org_id='org_token'))}")

    assert verdict(authorizer, claims(), token) == "org_token"
    assert verdict(authorizer, {}, token) == "org_token"


def test_without_claims_the_token_is_missing(authorizer):
    assert verdict(authorizer, None) == "token_missing"


@pytest.mark.parametrize("what", [{"org_id": ORG}, {"client_id": CLIENT}, {"token_id": "01JYTOKEN00000000000000000"}])
def test_what_is_revoked_is_refused(authorizer, claims, what):
    authorizer.revoke(**what)

    assert verdict(authorizer, claims()) == "token_inactive"


def test_what_the_route_asks_is_asked(authorizer, claims):
    assert verdict(authorizer, claims(), requirements=requirements_from({"scopes": "ledger:read"})) == ORG
    assert verdict(authorizer, claims(), requirements=requirements_from({"scopes": "x"})) == "insufficient_scope"


def test_a_method_that_asks_the_issuer_wants_the_token(verifier, claims, clock):
    endpoint = FakeTransport(lambda: json_response({"active": True}))
    introspector = Introspector(ISSUER, client_id="ours", client_secret="secret", transport=endpoint, clock=clock.clock)
    authorizer = Authorizer(verifier, introspector=introspector, assurance={METHOD: Assurance()})

    assert verdict(authorizer, claims()) == "token_missing"
    assert verdict(authorizer, claims(), method=OTHER_METHOD) == ORG
    assert endpoint.fetches == 0


@pytest.mark.parametrize(
    ("peer", "outcome"),
    [
        (Peer(certificate=THUMBPRINT), ORG),
        (Peer(certificate="another"), "claim_invalid"),
        (Peer(), "claim_invalid"),
        (None, "claim_invalid"),
    ],
)
def test_bound_claims_are_good_for_their_owner_only(authorizer, claims, peer, outcome):
    assert verdict(authorizer, claims(cnf={"x5t#S256": THUMBPRINT}), peer=peer) == outcome


@pytest.mark.parametrize(
    ("named", "outcome"),
    [(ISSUER, "claim_invalid"), ("https://other.example", ORG), ("https://third.example", "claim_invalid")],
)
def test_claims_are_judged_by_the_rules_of_the_issuer_that_they_name(new_verifier, claims, named, outcome):
    other = new_verifier(issuer="https://other.example")
    verifiers = Verifiers(new_verifier(audience="another"), other, shared_organizations=True)

    assert verdict(Authorizer(verifiers), claims(iss=named)) == outcome
    assert verdict(Authorizer(verifiers), claims(iss=[named])) == "claim_invalid"
    assert verdict(Authorizer(verifiers), {}) == "claim_invalid"


def test_a_server_that_takes_no_tokens_takes_no_claims_either(claims):
    assert verdict(Authorizer(None, trust=MeshPeers(unix_socket=True)), claims()) == "unauthenticated"
