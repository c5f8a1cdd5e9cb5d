import pytest

from authz.call.call import Call
from authz.call.metadata import TrustedMetadata
from authz.call.peer import Peer
from authz.call.principal import ANONYMOUS, Principal
from authz.envoy.check.route import requirements_from
from authz.errors import AuthzError, InsufficientScopeError
from authz.judge.authorizer import Authorizer
from authz.judge.mesh import MeshPeers
from authz.runtime.flow import run
from tests.doubles import AUDIENCE

METHOD = "/authz.demo.v1.Ledger/GetBalance"
PUBLIC = "/grpc.health.v1.Health/Check"
OTHER_AUDIENCE = "client_01JYOTHER00000000000000000"


def asked(**extensions):
    return requirements_from(extensions)


@pytest.fixture
def authorizer(new_verifier):
    return Authorizer(new_verifier(audience=[AUDIENCE, OTHER_AUDIENCE]), public_methods=[PUBLIC])


@pytest.fixture
def verdict(authorizer, ec_key, claims):
    """Return a function that says how a call with a token ends, or one without if there are no changes to it."""

    def verdict(requirements, method=METHOD, **changes):
        metadata = [("authorization", f"Bearer {ec_key.sign(claims(**changes))}")] if changes else []
        call = Call(method=method, metadata=metadata, requirements=requirements)
        try:
            principal = run(authorizer.authorize(call))
        except AuthzError as error:
            return error.reason
        return "anonymous" if principal is ANONYMOUS else "allowed"

    return verdict


@pytest.mark.parametrize(
    ("audience", "outcome"),
    [
        (AUDIENCE, "allowed"),
        ([OTHER_AUDIENCE, AUDIENCE], "allowed"),
        (OTHER_AUDIENCE, "claim_invalid"),
        ([OTHER_AUDIENCE], "claim_invalid"),
    ],
)
def test_a_token_for_another_audience_than_the_routes_is_refused(verdict, audience, outcome):
    assert verdict(asked(audience=AUDIENCE), aud=audience) == outcome


def test_a_route_cannot_widen_what_the_verifier_accepts(verdict):
    assert verdict(asked(audience="client_third"), aud="client_third") == "claim_invalid"


@pytest.mark.parametrize(
    ("scope", "outcome"),
    [
        ("a b", "allowed"),
        ("c b a", "allowed"),
        ("a", "insufficient_scope"),
        ("", "insufficient_scope"),
        ("ab", "insufficient_scope"),
        ("A B", "insufficient_scope"),
        ("a:b b", "insufficient_scope"),
    ],
)
def test_every_scope_is_needed(verdict, scope, outcome):
    assert verdict(asked(scopes="a b"), scope=scope) == outcome


@pytest.mark.parametrize(
    "requirements", [asked(audience=AUDIENCE), asked(scopes="a"), asked(scope="a"), asked(policy="p")]
)
def test_a_public_method_of_which_something_is_asked_is_not_public(verdict, requirements):
    assert verdict(None, method=PUBLIC) == "anonymous"
    assert verdict(requirements, method=PUBLIC) == "token_missing"


@pytest.mark.parametrize(
    ("requirements", "event"),
    [
        (asked(policy="partners"), "policy_unknown policy='partners'"),
        (asked(scope="a"), "requirements_invalid key='scope'"),
        (asked(audience=""), "requirements_invalid key='audience'"),
    ],
)
def test_mistakes_of_the_operator_let_nobody_in_and_are_logged(verdict, caplog, requirements, event):
    with caplog.at_level("ERROR", "authz"):
        assert verdict(requirements, scope="a") == "internal"
    assert caplog.messages == [event]


def test_how_a_route_is_configured_is_no_strangers_business(verdict, caplog):
    with caplog.at_level("ERROR", "authz"):
        assert verdict(asked(policy="partners")) == "token_missing"
        assert verdict(asked(policy="partners"), exp=1, iat=0) == "token_expired"
    assert caplog.messages == []


def test_a_caller_whom_a_proxy_names_meets_the_same_requirements(verifier):
    names, peer = TrustedMetadata(), Peer(is_unix_socket=True)
    said = names.entries(
        Principal(org_id="org_1", client_id="c", subject="c", scopes=frozenset("a"), expires_at=253_402_300_799.0)
    )
    authorizer = Authorizer(verifier, trust=MeshPeers(unix_socket=True))

    def authorize(requirements):
        return run(authorizer.authorize(Call(method=METHOD, metadata=said, peer=peer, requirements=requirements)))

    assert authorize(asked(scopes="a")).org_id == "org_1"
    with pytest.raises(InsufficientScopeError):
        authorize(asked(scopes="a b"))
