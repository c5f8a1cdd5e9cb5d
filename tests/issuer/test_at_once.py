"""The quick way to a verdict, and what is known of applications, change no verdict: the flow says the same."""

import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError
from authz.issuer.verifier import Verifier
from authz.issuer.verifiers import Verifiers
from authz.runtime.flow import run
from authz.token.jws import digest_of
from tests.doubles import AUDIENCE, ISSUER, ORG, ManualClock, jwks, m2m_claims

OTHER = "client_01JYOTHER000000000000000003"
ABSENT = object()
NOW = ManualClock().now

# What one claim or another may say instead, good and bad; those that are equal in Python and not in JSON side by side.
SAID = {
    "iss": ["https://evil.example", ABSENT, 1],
    "aud": [[AUDIENCE], [AUDIENCE, "other"], "other", [AUDIENCE, 1], {}, ABSENT],
    "sub": [OTHER, "user_01", [], {}, None, True, ABSENT],
    "client_id": [OTHER, None, [], ABSENT],
    "org_id": ["org_01OTHER", "other", [ORG], None, ABSENT],
    "scope": ["", "a b", ["a", "b"], 'a"b', 1, None, ABSENT],
    "scp": ["c", ["c"], 1, True, 1.0],
    "jti": ["2", "3", 1, None, [], ABSENT],
    "iat": [NOW, NOW + 1.5, NOW + 400, True, "1", None, ABSENT],
    "exp": [NOW + 1, NOW - 9, NOW - 10, NOW - 11, True, None, 1e300, ABSENT],
    "nbf": [NOW, NOW + 11, NOW + 10, False, None],
    "cnf": [{"x5t#S256": "A" * 43}, {"x5t#S256": "B" * 42 + "A"}, {"jkt": "a"}, {}, None],
    "sid": ["session", None],
    "nonce": ["n"],
    "plan": [1, True, 1.0, "gold", [1, [2]], [True, [2]], {"a": [1]}, {"a": [True]}, None, ABSENT],
}
changes = st.lists(
    st.sampled_from([(name, value) for name, values in SAID.items() for value in values]), max_size=3
).map(dict)
signers = st.sampled_from(["ours", "ours", "ours", "ours", "twin", "forger", "unknown"])
endings = st.sampled_from(["", "", "", "", "", "=", ".", "A"])


@pytest.fixture(scope="module")
def keys() -> dict[str, SigningKey]:
    ours = SigningKey.generate("ed-1", "EdDSA")
    return {
        "ours": ours,
        "twin": SigningKey.generate("ed-2", "EdDSA"),
        "forger": SigningKey.generate("ed-1", "EdDSA"),
        "unknown": SigningKey.generate("ed-3", "EdDSA"),
    }


def new_verifier(keys: dict[str, SigningKey], clock: ManualClock, **options) -> Verifier:
    return Verifier(
        issuer=ISSUER,
        audience=AUDIENCE,
        algorithms=["EdDSA"],
        jwks=jwks(keys["ours"], keys["twin"]),
        # Room for a few, so that tokens are forgotten meanwhile.
        token_memory=5000,
        clock=clock.clock,
        **options,
    )


def outcome(judge, token):
    """Return all that can be told of a verdict: the error, or the principal with the types of its claims."""
    try:
        principal = judge(token)
    except AuthzError as error:
        return type(error), error.reason, str(error), getattr(error, "claim", None)
    if principal is None:
        return None
    return principal, principal.key_thumbprint, json.dumps(principal.claims, default=plain, sort_keys=True)


def plain(value):
    return list(value) if isinstance(value, tuple) else dict(value)


def at_once(verifier):
    def judge(token):
        digest = digest_of(token)
        principal = verifier.remembered(digest)
        return verifier.verify_at_once(token, digest) if principal is None else principal

    return judge


@given(
    calls=st.lists(st.tuples(changes, signers, endings, st.sampled_from([0, 1, 10, 350])), min_size=1, max_size=8),
    several=st.booleans(),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_quick_way_says_what_the_flow_of_a_verifier_without_memory_says(keys, calls, several):
    clock = ManualClock()
    wrap = Verifiers if several else lambda verifier: verifier
    quick, slow = wrap(new_verifier(keys, clock)), wrap(new_verifier(keys, clock))
    for said, signer, ending, seconds in calls:
        clock.now += seconds
        claims = {name: value for name, value in (m2m_claims(NOW) | said).items() if value is not ABSENT}
        token = keys[signer].sign(claims) + ending
        fresh = wrap(new_verifier(keys, clock))

        expected = outcome(lambda token, fresh=fresh: run(fresh.verify_flow(token)), token)
        found = outcome(at_once(quick), token)

        # Only for the flow to say: whether the issuer has such a key.
        assert found in (expected, None)
        assert (found is None) == (signer == "unknown" and expected[1] == "key_not_found")
        assert outcome(lambda token: run(slow.verify_flow(token)), token) == expected


@pytest.mark.parametrize("persons", [False, True], ids=["applications", "persons too"])
@pytest.mark.parametrize("name", SAID)
def test_no_token_is_read_as_an_earlier_one_of_its_application(keys, name, persons):
    """Such as one for another audience, after one whose audience was a list."""
    clock = ManualClock()
    usual = m2m_claims(NOW).get(name, ABSENT)
    for first, second in itertools.permutations([usual, *SAID[name]], 2):
        verifier, fresh = (new_verifier(keys, clock, allow_user_tokens=persons) for _ in range(2))
        tokens = []
        for number, value in (("one", first), ("two", second)):
            claims = {**m2m_claims(NOW, jti=number), name: value}
            tokens.append(keys["ours"].sign({key: each for key, each in claims.items() if each is not ABSENT}))
        outcome(verifier.verify, tokens[0])

        assert outcome(verifier.verify, tokens[1]) == outcome(fresh.verify, tokens[1])


@given(text=st.text("aA0_-.=\u00e9", max_size=40))
@settings(max_examples=200)
def test_the_quick_way_refuses_any_text_as_the_flow_does(keys, text):
    verifier = new_verifier(keys, ManualClock())

    assert outcome(at_once(verifier), text) == outcome(lambda token: run(verifier.verify_flow(token)), text)


@pytest.fixture
def token(ec_key, clock):
    return ec_key.sign(m2m_claims(clock.now))


def test_the_quick_way_leaves_keys_that_are_not_at_hand_to_the_flow(verifier, token):
    """Nothing was fetched yet."""
    assert verifier.verify_at_once(token, digest_of(token)) is None

    assert verifier.verify(token) is verifier.remembered(digest_of(token))


def test_the_quick_way_remembers_what_it_has_verified(verifier, token):
    verifier.warm_up()
    principal = verifier.verify_at_once(token, digest_of(token))

    assert verifier.remembered(digest_of(token)) is principal


def test_the_quick_way_has_keys_fetched_that_are_due(verifier, token, clock):
    verifier.warm_up()
    clock.now += 299
    before = verifier.health()[ISSUER].fetches
    verifier.verify_at_once(token, digest_of(token))

    assert verifier.health()[ISSUER].fetches == before + 1


def test_the_quick_way_believes_no_keys_that_are_too_old(verifier, token, clock):
    verifier.warm_up()
    clock.now += 4000

    assert verifier.verify_at_once(token, digest_of(token)) is None


def test_a_token_that_is_not_signed_teaches_nothing_about_an_application(keys):
    verifier = new_verifier(keys, ManualClock())
    with pytest.raises(AuthzError):
        verifier.verify(keys["forger"].sign(m2m_claims(NOW, plan="gold")))

    assert verifier.expectations().rules.known == {}


def test_applications_of_any_number_are_known_in_bounded_number(keys):
    verifier = new_verifier(keys, ManualClock())
    for number in range(1500):
        client = f"client_{number}"
        verifier.verify(keys["ours"].sign(m2m_claims(NOW, sub=client, client_id=client)))

    assert 0 < len(verifier.expectations().rules.known) <= 1024
