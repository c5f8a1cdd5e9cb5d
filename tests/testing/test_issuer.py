"""The issuer in memory: its tokens are real, its verifiers are real, and nobody else accepts what it signs."""

from typing import Any

import grpc
import pytest

from authz import Authorizer, AuthzError, Decision, Principal, TokenProfile, Verifier, Verifiers
from authz.demo.issuer.signing import SigningKey
from authz.testing import Issuer
from authz.testing.issuer import _key_of_process
from interceptors import AuthzInterceptor
from tests.certificates import Authority
from tests.doubles import NOW, PATIENCE, ManualClock, jwks
from tests.testing.echo import METHOD, serving

ORG = "org_acme"


def reason_of(verifier: Verifier | Verifiers, token: str) -> str:
    """Return why a token is refused; an empty text if it is good."""
    try:
        verifier.verify(token)
    except AuthzError as error:
        return error.reason
    return ""


def test_a_token_names_its_caller() -> None:
    issuer = Issuer(clock=ManualClock().clock)

    principal = issuer.verifier().verify(issuer.token(ORG, scopes=["a", "b"], client_id="client_1", plan="gold"))

    assert principal == Principal(
        org_id=ORG,
        client_id="client_1",
        subject="client_1",
        scopes=frozenset({"a", "b"}),
        issuer=issuer.url,
        audience=(issuer.audience,),
        token_id=principal.claims["jti"],
        issued_at=NOW,
        expires_at=NOW + 300,
        key_id=principal.key_id,
        claims=principal.claims,
    )
    assert principal.claims["plan"] == "gold"


def test_each_token_is_another_one() -> None:
    issuer = Issuer()

    assert issuer.token(ORG) != issuer.token(ORG)


FAULTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "expired": ("expired", {}, "token_expired"),
    "wrong audience": ("wrong_audience", {}, "claim_invalid"),
    "wrong issuer": ("wrong_issuer", {}, "claim_invalid"),
    "wrong signature": ("wrong_signature", {}, "signature_invalid"),
    "of a person": ("token", {"sub": "user_1"}, "claim_invalid"),
    "another pattern": ("token", {"org_id": "acme"}, "claim_invalid"),
    "without organization": ("token", {"org_id": None}, "claim_missing"),
    "without subject": ("token", {"client_id": None}, "claim_missing"),
    "without expiry": ("token", {"exp": None}, "claim_missing"),
    "without issuer": ("token", {"iss": None}, "claim_missing"),
    "without audience": ("token", {"aud": None}, "claim_missing"),
    "without kid": ("token", {"header": {"kid": None}}, "token_malformed"),
    "of another algorithm": ("token", {"header": {"alg": "ES256"}}, "algorithm_not_allowed"),
    "of an unknown key": ("token", {"header": {"kid": "other"}}, "key_not_found"),
    "not valid yet": ("token", {"nbf": NOW + 60}, "claim_invalid"),
}


@pytest.mark.parametrize(("method", "arguments", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_bad_token_is_refused_for_its_one_fault(method: str, arguments: dict[str, Any], reason: str) -> None:
    issuer = Issuer(clock=ManualClock().clock)
    verifier = issuer.verifier()

    assert reason_of(verifier, getattr(issuer, method)(ORG, **arguments)) == reason
    assert reason_of(verifier, issuer.token(ORG)) == ""


@pytest.mark.parametrize("method", ["expired", "wrong_audience", "wrong_issuer", "wrong_signature"])
def test_a_bad_token_is_otherwise_as_it_was_asked_for(method: str) -> None:
    issuer = Issuer()
    key = _key_of_process("RS256")
    token = getattr(issuer, method)(ORG, scopes="a b", plan="gold")
    if method == "wrong_signature":
        with pytest.raises(ValueError, match="not signed"):
            key.open(token)
    else:
        assert {"org_id": ORG, "scope": "a b", "plan": "gold"}.items() <= key.open(token).items()


@pytest.mark.parametrize("expires_in", [1.0, 60.0, 300.0, 3600.0])
def test_a_token_expires_at_its_second(expires_in: float) -> None:
    clock = ManualClock()
    issuer = Issuer(clock=clock.clock)
    token = issuer.token(ORG, expires_in=expires_in)
    clock.advance(expires_in - 0.001)
    before = reason_of(issuer.verifier(leeway=0), token)
    clock.advance(0.001)

    assert (before, reason_of(issuer.verifier(leeway=0), token)) == ("", "token_expired")


def test_metadata_and_headers_carry_the_token() -> None:
    issuer = Issuer()
    [(name, value)] = issuer.metadata(ORG, scopes=["a"])
    [(header, text)] = issuer.headers(ORG, scopes=["a"]).items()

    assert name == header == "authorization"
    for credentials in (value, text):
        scheme, _, token = credentials.partition(" ")
        assert scheme == "Bearer"
        assert issuer.verifier().verify(token).scopes == {"a"}


@pytest.mark.parametrize("profile", ["workos", "auth0", "entra", "keycloak", "okta"])
def test_every_profile_writes_tokens_that_its_own_rules_accept(profile: Any) -> None:
    issuer = Issuer(profile=profile)

    principal = issuer.verifier().verify(issuer.token(ORG, scopes=["a", "b"], client_id="client_1"))

    assert (principal.org_id, principal.client_id, principal.scopes) == (ORG, "client_1", {"a", "b"})


def test_a_profile_of_ones_own_writes_its_claims() -> None:
    profile = TokenProfile(org_id="tenant", client_id="app", scopes=(), application={"kind": "machine {client_id}"})
    issuer = Issuer(profile=profile)

    claims = issuer.verifier().verify(issuer.token(ORG, client_id="client_1", scopes=["a"])).claims

    assert {"tenant": ORG, "app": "client_1", "kind": "machine client_1"}.items() <= claims.items()
    assert "scope" not in claims


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_it_signs_with_the_algorithm_of_ones_choice(algorithm: str) -> None:
    issuer = Issuer(algorithm=algorithm)

    assert issuer.verifier().verify(issuer.token(ORG)).org_id == ORG


def test_a_verifier_takes_every_argument() -> None:
    issuer = Issuer("https://a.test", audience="other")
    persons = issuer.verifier(allow_user_tokens=True, audience=["other", "one more"], org_id_pattern="[a-z]+")

    assert persons.verify(issuer.token("acme", sub="user_1", audience="one more")).subject == "user_1"
    assert reason_of(issuer.verifier(), issuer.token("acme")) == "claim_invalid"


def test_several_issuers_speak_for_their_own_organizations() -> None:
    old, new = Issuer("https://old.test"), Issuer("https://new.test")
    verifiers = Verifiers(old.verifier(), new.verifier(), organizations={old.url: ["org_a"], new.url: ["org_b"]})

    reasons = [reason_of(verifiers, issuer.token(org)) for issuer in (old, new) for org in ("org_a", "org_b")]

    assert [reason == "" for reason in reasons] == [True, False, False, True]


# ---- Keys ----


def test_a_process_makes_one_key() -> None:
    assert Issuer().jwks() == Issuer("https://other.test").jwks()


def test_keys_that_are_published_are_public() -> None:
    [member] = Issuer().jwks()["keys"]

    assert member.keys() == {"kty", "n", "e", "kid", "use", "alg"}


def test_a_token_of_another_issuer_of_the_same_name_is_refused(rsa_key: SigningKey) -> None:
    issuer = Issuer()
    other = issuer.verifier(jwks=jwks(rsa_key))

    assert reason_of(other, issuer.token(ORG)) == "key_not_found"


@pytest.mark.parametrize("drop", [False, True])
def test_a_new_key_is_known_to_verifiers_that_are_made_afterwards(drop: bool) -> None:  # noqa: FBT001 - a parameter
    issuer = Issuer()
    before, early = issuer.token(ORG), issuer.verifier()
    issuer.rotate(drop=drop)
    after, late = issuer.token(ORG), issuer.verifier()

    assert [reason_of(early, before), reason_of(early, after)] == ["", "key_not_found"]
    assert [reason_of(late, before), reason_of(late, after)] == ["key_not_found" if drop else "", ""]
    assert reason_of(Issuer().verifier(), before) == ""


# ---- Doors ----


def test_a_token_for_one_certificate_is_good_for_its_client_alone() -> None:
    authority, issuer = Authority(), Issuer()
    decisions: list[Decision] = []
    interceptor = AuthzInterceptor(Authorizer(issuer.verifier(), observers=[decisions.append]))
    server, *clients = authority.issue_for_loopback(), authority.issue(), authority.issue()
    of_server = grpc.ssl_server_credentials([(server.key, server.chain)], authority.root, require_client_auth=True)

    for client in clients:
        of_client = grpc.ssl_channel_credentials(authority.root, client.key, client.chain)
        with serving(interceptor, of_server, of_client) as (channel, _):
            metadata = issuer.metadata(ORG, certificate=clients[0].chain)
            call = channel.unary_unary(METHOD).future(b"", metadata=metadata, timeout=PATIENCE)
            call.exception()

    assert [decision.refusal and decision.refusal.reason for decision in decisions] == [None, "claim_invalid"]
