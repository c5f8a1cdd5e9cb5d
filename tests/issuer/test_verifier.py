import asyncio
import base64
import hashlib
import hmac
import json
import os
import pathlib
import threading

import joserfc.jwt
import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.jwk import import_key

from authz.call.peer import Peer
from authz.demo.issuer.signing import SigningKey
from authz.errors import (
    AuthzError,
    BadSignatureError,
    ClaimError,
    ConfigError,
    KeySetUnavailableError,
    PeerUnknownError,
    TokenExpiredError,
    TokenMalformedError,
)
from authz.issuer.remote_keys import STALE
from authz.issuer.verifier import CACHE_SECONDS, Verifier
from tests.doubles import (
    ABSENT,
    AUDIENCE,
    CLIENT,
    ISSUER,
    JWKS_URL,
    NOW,
    ORG,
    FakeIssuer,
    FakeTransport,
    drive,
    json_response,
    jwks,
    m2m_claims,
)


def reason_of(verifier, token):
    with pytest.raises(AuthzError) as caught:
        verifier.verify(token)
    return caught.value.reason


def verdict(verifier, token):
    try:
        verifier.verify(token)
    except AuthzError as error:
        return error.reason
    return "allowed"


@pytest.fixture
def token(ec_key, claims):
    return ec_key.sign(claims())


@pytest.fixture
def warm(verifier):
    """Return a verifier that has its keys, so that every further fetch is somebody's doing."""
    verifier.warm_up()
    return verifier


# ---- Good tokens ----


def test_a_good_token_names_its_principal(verifier, token):
    caller = verifier.verify(token)

    assert (caller.org_id, caller.client_id, caller.issuer) == (ORG, CLIENT, ISSUER)


def test_the_defaults_fit_workos(rsa_key, clock):
    """Only issuer and audience are given, and the header is exactly alg and kid."""
    issuer = FakeIssuer(rsa_key)
    verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, transport=issuer.transport, clock=clock.clock)

    assert verifier.verify(rsa_key.sign(m2m_claims())).org_id == ORG
    assert [request.url for request in issuer.transport.requests] == [JWKS_URL]


def test_averify_gives_the_same_verdicts(verifier, token):
    async def scenario():
        return await asyncio.gather(verifier.averify(token), verifier.averify("garbage"), return_exceptions=True)

    principal, error = asyncio.run(scenario())

    assert principal == verifier.verify(token)
    assert isinstance(error, TokenMalformedError)


def pyjwt_token(key, claims):
    return jwt.encode(claims, jwt.PyJWK(key.private_jwk()), key.algorithm, headers={"kid": key.kid})


def joserfc_token(key, claims):
    header = {"alg": key.algorithm, "kid": key.kid, "typ": "at+jwt"}
    return joserfc.jwt.encode(header, claims, import_key(key.private_jwk()), algorithms=[key.algorithm])


@pytest.fixture(params=["RS256", "ES256"])
def any_key(request, rsa_key, ec_key):
    return {key.algorithm: key for key in (rsa_key, ec_key)}[request.param]


@pytest.mark.parametrize("encode", [pyjwt_token, joserfc_token])
def test_tokens_of_other_libraries_are_good(new_verifier, issuer, claims, any_key, encode):
    issuer.keys = [any_key]

    assert new_verifier(algorithms=[any_key.algorithm]).verify(encode(any_key, claims())).org_id == ORG


def test_pyjwt_takes_what_is_good_here(verifier, ec_key, token):
    verifier.verify(token)

    key = jwt.PyJWK(ec_key.public_jwk())
    options = {"verify_exp": False, "verify_iat": False}
    jwt.decode(token, key, ["ES256"], audience=AUDIENCE, issuer=ISSUER, options=options)


# ---- Order of the checks ----


def test_a_bad_signature_wins_over_an_expired_token(warm, clock):
    forger = SigningKey.generate("ec-1", "ES256")

    assert reason_of(warm, forger.sign(m2m_claims(clock.now - 3600))) == "signature_invalid"


@pytest.mark.parametrize(
    "changes", [{"aud": "other"}, {"exp": ABSENT}, {"org_id": 5}, {"sid": "s"}], ids=lambda changes: next(iter(changes))
)
def test_a_bad_signature_wins_over_wrong_claims(warm, claims, changes):
    forger = SigningKey.generate("ec-1", "ES256")

    assert reason_of(warm, forger.sign(claims(**changes))) == "signature_invalid"


def test_an_unknown_kid_wins_over_an_expired_token(warm, other_key, clock):
    """What nobody has signed must not be reported as a fact."""
    assert reason_of(warm, other_key.sign(m2m_claims(clock.now - 3600))) == "key_not_found"


def test_the_algorithm_comes_before_the_issuer(verifier, ec_key, claims):
    assert reason_of(verifier, ec_key.sign(claims(iss="other"), {"alg": "none"})) == "algorithm_not_allowed"


def segment(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def hs256(key, claims):
    signing_input = f"{segment({'alg': 'HS256', 'kid': key.kid})}.{segment(claims)}"
    secret = json.dumps(key.public_jwk()).encode()
    return f"{signing_input}.{segment(hmac.digest(secret, signing_input.encode(), hashlib.sha256))}"


def with_payload(payload):
    return lambda key: key.sign(payload)


def with_header(**changes):
    return lambda key: key.sign(m2m_claims(), changes)


def with_claims(**changes):
    return lambda key: key.sign(m2m_claims(**changes))


GARBAGE = [
    pytest.param(lambda _: "", "token_malformed", id="empty"),
    pytest.param(lambda _: "garbage", "token_malformed", id="garbage"),
    pytest.param(lambda _: "é", "token_malformed", id="A4-not-ascii"),
    pytest.param(lambda _: "\ud800", "token_malformed", id="A4-surrogate"),
    pytest.param(lambda _: "\0" * 50, "token_malformed", id="A4-nul"),
    pytest.param(lambda _: "a" * 8193, "token_malformed", id="A5-8193"),
    pytest.param(lambda key: key.sign(m2m_claims(padding="a" * 8000)), "token_malformed", id="A5-well-signed"),
    pytest.param(lambda _: "é" * 10_000_000, "token_malformed", id="A5-huge"),
    pytest.param(lambda _: "a.b.c.d.e", "token_malformed", id="B1-jwe"),
    pytest.param(lambda key: key.sign(m2m_claims()) + "=", "token_malformed", id="B2-padding"),
    pytest.param(with_payload(b'{"iss":"x","iss":"y"}'), "token_malformed", id="B3-claim-twice"),
    pytest.param(with_payload(b'{"org_id":"org_a","org_id":"org_b"}'), "token_malformed", id="B3-org-twice"),
    pytest.param(with_payload(b'{"x":[{"org_id":"a","org_id":"b"}]}'), "token_malformed", id="B3-twice-nested"),
    pytest.param(with_payload(b"\xef\xbb\xbf{}"), "token_malformed", id="B3-byte-order-mark"),
    pytest.param(with_payload(b"\xff"), "token_malformed", id="B3-not-utf-8"),
    pytest.param(with_payload(b"[]"), "token_malformed", id="B3-array"),
    pytest.param(with_payload(b'"claims"'), "token_malformed", id="B3-string"),
    pytest.param(with_header(crit=["exp"]), "token_malformed", id="B4-crit"),
    pytest.param(with_header(crit=[]), "token_malformed", id="B4-crit-empty-list"),
    pytest.param(with_header(b64=False), "token_malformed", id="B5-b64"),
    pytest.param(with_header(alg="none"), "algorithm_not_allowed", id="B6-none"),
    pytest.param(with_header(alg="nOnE"), "algorithm_not_allowed", id="B6-none-mixed-case"),
    pytest.param(with_header(alg=["ES256"]), "algorithm_not_allowed", id="B6-list"),
    pytest.param(with_header(alg="RS256"), "algorithm_not_allowed", id="B6-not-on-the-list"),
    pytest.param(lambda key: hs256(key, m2m_claims()), "algorithm_not_allowed", id="B6-public-key-as-secret"),
    pytest.param(with_header(jwk={"kty": "EC"}), "token_malformed", id="B7-jwk"),
    pytest.param(with_header(jku="https://evil.example/jwks"), "token_malformed", id="B7-jku"),
    pytest.param(with_header(kid=None), "token_malformed", id="B8-no-kid"),
    pytest.param(with_header(kid=["ec-1"]), "token_malformed", id="B8-kid-list"),
    pytest.param(with_header(kid="ec-1\n"), "token_malformed", id="B8-kid-newline"),
    pytest.param(with_header(kid="k" * 5000), "token_malformed", id="B8-kid-long"),
    pytest.param(with_header(typ="dpop+jwt"), "token_malformed", id="B9-typ"),
    pytest.param(with_header(zip="DEF"), "token_malformed", id="B10-zip"),
    pytest.param(with_payload(b'{"exp":NaN}'), "token_malformed", id="B13-nan"),
    pytest.param(with_payload(b'{"exp":1' + b"0" * 400 + b"}"), "token_malformed", id="B13-exp-10-to-the-400"),
    pytest.param(with_payload(b'{"exp":1e400}'), "token_malformed", id="B13-exp-infinite"),
    pytest.param(with_payload(b'{"org_id":"\\ud800"}'), "token_malformed", id="B13-surrogate"),
    pytest.param(with_payload(b"[" * 5000), "token_malformed", id="B13-deep"),
    pytest.param(with_payload(b"{}"), "claim_missing", id="no-claims"),
    pytest.param(with_claims(iss="https://evil.example"), "claim_invalid", id="D1-other-issuer"),
    pytest.param(with_claims(iss=ISSUER + "/"), "claim_invalid", id="D1-trailing-slash"),
    pytest.param(with_claims(iss=[ISSUER]), "claim_invalid", id="D1-list"),
    pytest.param(with_claims(iss="acme"), "claim_invalid", id="D1-substring"),
    pytest.param(with_claims(iss="https://api.workos.com"), "claim_invalid", id="D1-user-management"),
    pytest.param(with_claims(iss=ABSENT), "claim_missing", id="D1-missing"),
]


@pytest.mark.parametrize(("make", "reason"), GARBAGE)
def test_garbage_is_refused_before_anything_is_fetched(verifier, transport, ec_key, make, reason):
    """Whoever sends it must not make the issuer, or anybody else, work."""
    assert (reason_of(verifier, make(ec_key)), transport.fetches) == (reason, 0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"aud": "other"}, "claim_invalid", id="D2-audience"),
        pytest.param({"aud": AUDIENCE[:-1]}, "claim_invalid", id="D2-substring"),
        pytest.param({"exp": ABSENT}, "claim_missing", id="D3-no-exp"),
        pytest.param({"exp": True}, "claim_invalid", id="D3-bool"),
        pytest.param({"exp": NOW - 10}, "token_expired", id="D3-expired"),
        pytest.param({"iat": NOW + 11}, "claim_invalid", id="D4-future"),
        pytest.param({"nbf": NOW + 11}, "claim_invalid", id="D4-not-yet"),
        pytest.param({"sub": "client_other"}, "claim_invalid", id="D5-sub-is-not-client-id"),
        pytest.param({"sid": "app_consent_01", "sub": "user_01"}, "claim_invalid", id="D6-user-token"),
        pytest.param({"org_id": ABSENT}, "claim_missing", id="D7-no-organization"),
        pytest.param({"org_id": "org_a\r\nx-org-id: org_b"}, "claim_invalid", id="D7-header-injection"),
        pytest.param({"jti": 5}, "claim_invalid", id="D8-jti"),
        pytest.param({"nonce": "n"}, "claim_invalid", id="D9-id-token"),
        pytest.param({"scope": {}}, "claim_invalid", id="D10-scope"),
        pytest.param({"cnf": {"jkt": "t"}}, "claim_invalid", id="H2-sender-constrained"),
    ],
)
def test_a_well_signed_token_with_wrong_claims_is_refused(verifier, ec_key, claims, changes, reason):
    token = ec_key.sign(claims(**changes))

    assert (reason_of(verifier, token), reason_of(verifier, token)) == (reason, reason)


@pytest.mark.parametrize(("seconds", "outcome"), [(309, "allowed"), (310, "token_expired"), (311, "token_expired")])
def test_a_token_expires_at_exp_plus_leeway(verifier, token, clock, seconds, outcome):
    clock.advance(seconds)

    assert verdict(verifier, token) == outcome


def test_a_token_may_expire_while_its_key_is_fetched(verifier, token, transport, clock):
    transport.hang()
    flow = verifier.verify_flow(token)
    wait = next(flow)
    clock.advance(310)
    transport.release()

    with pytest.raises(TokenExpiredError):
        flow.send(wait.future.result(0))


def test_a_deeply_nested_well_signed_token_is_read(verifier, ec_key):
    deep = '{"a":' * 250 + "1" + "}" * 250
    payload = json.dumps(m2m_claims())[:-1] + f',"deep":{deep}}}'

    assert verdict(verifier, ec_key.sign(payload.encode())) == "allowed"


# ---- Tokens that are bound to a certificate ----


THUMBPRINT = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"
OWNER = Peer(certificate=THUMBPRINT)
OTHERS = [
    pytest.param(Peer(), id="no-certificate"),
    pytest.param(Peer(certificate=THUMBPRINT[::-1]), id="another"),
    pytest.param(Peer(certificate=THUMBPRINT.swapcase()), id="another-case"),
    pytest.param(Peer(certificate=THUMBPRINT[:-1]), id="a-part"),
    pytest.param(Peer(spiffe_id=THUMBPRINT, dns_names=frozenset({THUMBPRINT})), id="another-name"),
    pytest.param(Peer(is_unix_socket=True), id="unix-socket"),
]


@pytest.fixture
def bound(ec_key, claims):
    return ec_key.sign(claims(cnf={"x5t#S256": THUMBPRINT}))


def test_a_bound_token_is_good_for_the_owner_of_its_certificate(verifier, bound):
    """H1."""
    assert verifier.verify(bound, OWNER).certificate == THUMBPRINT
    assert asyncio.run(verifier.averify(bound, OWNER)).certificate == THUMBPRINT


@pytest.mark.parametrize("peer", OTHERS)
def test_a_bound_token_is_good_for_nobody_else(verifier, bound, peer):
    """H1: remembered or not."""
    for _ in range(2):
        with pytest.raises(ClaimError) as caught:
            verifier.verify(bound, peer)
        assert (caught.value.claim, caught.value.reason) == ("cnf", "claim_invalid")
        assert verifier.verify(bound, OWNER).org_id == ORG


def test_a_bound_token_is_refused_where_nobody_can_tell_the_peer(verifier, bound):
    """H1: remembered or not."""
    for _ in range(2):
        with pytest.raises(PeerUnknownError):
            verifier.verify(bound)
        with pytest.raises(PeerUnknownError):
            asyncio.run(verifier.averify(bound))
        verifier.verify(bound, OWNER)


@pytest.mark.parametrize("peer", [None, OWNER, Peer()])
def test_a_bearer_token_is_good_for_whoever_brings_it(verifier, token, peer):
    assert verifier.verify(token, peer).certificate == ""


def test_a_bound_token_that_is_forged_is_said_to_be_forged(verifier, other_key, ec_key, claims):
    """Whoever the peer is: what nobody has signed is not reported as a fact."""
    forged = other_key.sign(claims(cnf={"x5t#S256": THUMBPRINT}), {"kid": ec_key.kid})
    for peer in (None, OWNER, Peer()):
        with pytest.raises(BadSignatureError):
            verifier.verify(forged, peer)


# ---- Keys ----


def test_an_unknown_kid_is_not_found(warm, other_key, claims, transport):
    assert (reason_of(warm, other_key.sign(claims())), transport.fetches) == ("key_not_found", 2)


def test_an_unknown_kid_is_unavailable_where_its_fetch_failed(warm, other_key, claims, transport):
    transport.down()

    assert (reason_of(warm, other_key.sign(claims())), transport.fetches) == ("key_set_unavailable", 2)


def test_a_rotated_key_is_found(warm, issuer, other_key, claims):
    issuer.keys.append(other_key)

    assert verdict(warm, other_key.sign(claims())) == "allowed"


def test_an_unreachable_issuer_is_no_fault_of_the_token(verifier, token, transport):
    transport.down()

    with pytest.raises(KeySetUnavailableError):
        verifier.verify(token)


def test_an_hour_without_the_issuer_still_serves(warm, ec_key, claims, clock, transport):
    transport.down()
    clock.advance(STALE - 1)
    assert verdict(warm, ec_key.sign(claims())) == "allowed"

    clock.advance(1)
    assert verdict(warm, ec_key.sign(claims())) == "key_set_unavailable"


def test_a_key_for_another_algorithm_is_not_found(new_verifier, rsa_key, issuer, claims):
    """C1."""
    issuer.keys = [rsa_key]
    signer = SigningKey.from_jwk({**rsa_key.private_jwk(), "alg": "PS256"})

    assert reason_of(new_verifier(algorithms=["RS256", "PS256"]), signer.sign(claims())) == "key_not_found"


def test_a_p384_key_with_es256_is_not_found(new_verifier, issuer, claims):
    """C5."""
    key = SigningKey.generate("ec-1", "ES384")
    issuer.keys = [key]
    verifier = new_verifier(algorithms=["ES256", "ES384"])

    assert verdict(verifier, key.sign(claims())) == "allowed"
    assert [reason_of(verifier, key.sign(claims(), {"alg": "ES256"})) for _ in range(2)] == ["key_not_found"] * 2


def test_the_algorithm_chooses_among_keys_of_one_kid(new_verifier, ec_key, rsa_key, issuer, claims):
    """C6: RFC 7517 section 4.5; nothing that only another algorithm's token could mean is in doubt."""
    namesake = SigningKey.from_jwk({**rsa_key.private_jwk(), "kid": "ec-1"})
    issuer.keys = [ec_key, namesake]
    verifier = new_verifier(algorithms=["ES256", "RS256"])

    assert [verdict(verifier, key.sign(claims())) for key in (ec_key, namesake)] == ["allowed"] * 2
    assert verdict(new_verifier(algorithms=["RS256"]), namesake.sign(claims())) == "allowed"


def test_a_key_that_takes_over_a_kid_for_another_algorithm_is_fetched(new_verifier, ec_key, rsa_key, issuer, claims):
    verifier = new_verifier(algorithms=["ES256", "RS256"])
    assert verdict(verifier, ec_key.sign(claims())) == "allowed"
    issuer.keys = [SigningKey.from_jwk({**rsa_key.private_jwk(), "kid": "ec-1"})]

    assert verdict(verifier, issuer.keys[0].sign(claims(jti="b"))) == "allowed"
    assert verdict(verifier, ec_key.sign(claims())) == "key_not_found"


def test_when_one_of_two_keys_of_a_kid_leaves_its_tokens_leave_with_it(new_verifier, ec_key, rsa_key, issuer, claims):
    namesake = SigningKey.from_jwk({**rsa_key.private_jwk(), "kid": "ec-1"})
    issuer.keys = [ec_key, namesake]
    verifier, withdrawn = new_verifier(algorithms=["ES256", "RS256"]), []
    verifier.watch_keys(lambda _issuer, kids: withdrawn.append(kids))
    tokens = [key.sign(claims()) for key in (ec_key, namesake)]
    assert [verdict(verifier, token) for token in tokens] == ["allowed"] * 2

    issuer.keys = [ec_key]
    verdict(verifier, ec_key.sign(claims(), {"kid": "nobody"}))

    assert [verdict(verifier, token) for token in tokens] == ["allowed", "key_not_found"]
    assert withdrawn == [frozenset({"ec-1"})]


def test_keys_of_one_issuer_do_not_serve_another(new_verifier, claims):
    """C8: two issuers, one kid."""
    ours, theirs = (SigningKey.generate("same", "ES256") for _ in range(2))
    other_issuer = FakeIssuer(theirs)
    verifier = new_verifier(transport=FakeIssuer(ours).transport)
    others = new_verifier(issuer="https://other.authkit.app", transport=other_issuer.transport)

    assert verdict(verifier, ours.sign(claims())) == "allowed"
    assert verdict(others, theirs.sign(claims(iss="https://other.authkit.app"))) == "allowed"
    assert reason_of(verifier, theirs.sign(claims())) == "signature_invalid"
    assert reason_of(verifier, theirs.sign(claims(iss="https://other.authkit.app"))) == "claim_invalid"


def test_a_key_inside_the_token_is_never_used(warm, claims):
    forger = SigningKey.generate("ec-1", "ES256")

    assert reason_of(warm, forger.sign(claims(), {"jwk": forger.public_jwk()})) == "token_malformed"


# ---- The memory of what has been verified ----


def test_a_token_is_verified_once(verifier, token):
    assert verifier.verify(token) is verifier.verify(token)


def test_another_text_of_a_verified_token_is_verified_by_itself(verifier, ec_key, claims):
    first, second = (ec_key.sign(claims()) for _ in range(2))

    assert verifier.verify(first) is not verifier.verify(second)


def test_a_remembered_token_expires(verifier, token, clock):
    verifier.verify(token)

    clock.advance(309)
    assert verdict(verifier, token) == "allowed"
    clock.advance(1)
    assert verdict(verifier, token) == "token_expired"


def test_a_token_is_remembered_for_300_seconds_at_the_most(verifier, ec_key, claims, clock):
    token = ec_key.sign(claims(exp=NOW + 3000))
    first = verifier.verify(token)

    clock.advance(CACHE_SECONDS - 1)
    assert verifier.verify(token) is first
    clock.advance(1)
    assert verifier.verify(token) is not first


def test_refused_tokens_are_not_remembered(warm, issuer, other_key, claims):
    token = other_key.sign(claims())
    assert verdict(warm, token) == "key_not_found"
    issuer.keys.append(other_key)

    assert verdict(warm, token) == "allowed"


def test_a_key_that_left_takes_its_tokens_along_at_once(warm, issuer, ec_key, other_key, claims):
    remembered, new = (ec_key.sign(claims()) for _ in range(2))
    warm.verify(remembered)
    issuer.keys = [other_key]
    # Any fetch will do: here the one for the key that is new.
    verdict(warm, other_key.sign(claims()))

    assert (reason_of(warm, remembered), reason_of(warm, new)) == ("key_not_found", "key_not_found")


def test_a_key_that_changed_under_its_kid_takes_its_tokens_along(warm, issuer, token, other_key, claims):
    warm.verify(token)
    issuer.publishes({"keys": [{**other_key.public_jwk(), "kid": "ec-1"}]})
    verdict(warm, other_key.sign(claims()))

    assert reason_of(warm, token) == "signature_invalid"


def test_stale_keys_take_their_tokens_along(new_verifier, ec_key, claims, clock, transport):
    verifier = new_verifier()
    verifier.warm_up()
    transport.down()
    clock.advance(STALE - 10)
    token = ec_key.sign(claims())
    verifier.verify(token)
    clock.advance(10)

    assert reason_of(verifier, token) == "key_set_unavailable"


def test_remembering_a_token_needs_no_issuer(warm, token, transport, clock):
    warm.verify(token)
    transport.hang()
    clock.advance(290)

    assert verdict(warm, token) == "allowed"


def test_remembered_tokens_alone_keep_the_keys_fresh(warm, ec_key, claims, clock, transport):
    """One token, called with once a second for an hour: nobody ever asks for a key."""
    token = ec_key.sign(claims(exp=NOW + 3600))
    for _ in range(3600):
        warm.verify(token)
        clock.advance(1)

    # At 80 % of 300 s, give or take a tenth.
    assert 3600 / 270 <= transport.fetches <= 1 + 3600 / 210


def test_a_withdrawn_key_takes_along_a_token_in_constant_use(warm, issuer, ec_key, other_key, clock):
    token = ec_key.sign(m2m_claims(exp=NOW + 3600))
    warm.verify(token)
    issuer.keys = [other_key]
    clock.advance(270)
    verdict(warm, token)

    assert reason_of(warm, token) == "key_not_found"


def test_the_oldest_tokens_are_forgotten_first(new_verifier, ec_key, claims):
    # Room for two.
    verifier = new_verifier(token_memory=4096)
    tokens = [ec_key.sign(claims(jti=str(number))) for number in range(3)]
    first, second, third = (verifier.verify(token) for token in tokens)

    assert [verifier.verify(tokens[2]) is third, verifier.verify(tokens[1]) is second] == [True, True]
    assert verifier.verify(tokens[0]) is not first


def test_threads_may_share_a_verifier(new_verifier, ec_key, claims):
    """Tokens come and go all the time."""
    verifier = new_verifier(token_memory=10_000)
    tokens = [ec_key.sign(claims(jti=str(number))) for number in range(20)]
    verifier.warm_up()
    outcomes = []

    def work():
        outcomes.extend(verdict(verifier, token) for _ in range(10) for token in tokens)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert outcomes == ["allowed"] * 800


# ---- Whatever comes ----


@pytest.fixture(scope="module")
def standing(ec_key):
    return Verifier(issuer=ISSUER, audience=AUDIENCE, algorithms=["ES256"], jwks=jwks(ec_key))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60) | st.lists(st.text("aA0-_=+/{}", max_size=9), max_size=5).map(".".join))
def test_no_text_ends_otherwise_than_in_a_verdict(standing, text):
    assert reason_of(standing, text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "x"]),
        st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just([]) | st.just({}),
        min_size=1,
    ),
    st.binary(max_size=20),
)
def test_no_header_and_payload_end_otherwise_than_in_a_verdict(standing, ec_key, changes, payload):
    assert reason_of(standing, ec_key.sign(payload, json.dumps({"alg": "ES256", "kid": "ec-1", **changes}).encode()))


# ---- Options ----


def test_user_tokens_can_be_allowed(new_verifier, ec_key, claims):
    token = ec_key.sign(claims(sub="user_01JY", sid="app_consent_01JY"))

    assert new_verifier(allow_user_tokens=True).verify(token).subject == "user_01JY"


def test_a_missing_kid_can_be_allowed(new_verifier, ec_key, claims):
    token = ec_key.sign(claims(), {"kid": None})

    assert verdict(new_verifier(allow_missing_kid=True), token) == "allowed"


def test_a_missing_kid_needs_a_single_key(new_verifier, issuer, ec_key, other_key, claims):
    issuer.keys = [ec_key, other_key]
    token = ec_key.sign(claims(), {"kid": None})

    assert reason_of(new_verifier(allow_missing_kid=True), token) == "key_not_found"


def test_a_missing_kid_counts_only_keys_for_its_algorithm(new_verifier, issuer, ec_key, rsa_key, claims):
    """B8: what no allowed algorithm can use cannot be meant."""
    issuer.keys = [ec_key, rsa_key]
    token = rsa_key.sign(claims(), {"kid": None})

    assert verdict(new_verifier(allow_missing_kid=True, algorithms=["RS256"]), token) == "allowed"
    assert verdict(new_verifier(allow_missing_kid=True, algorithms=["RS256", "ES256"]), token) == "allowed"


@pytest.mark.parametrize(("typ", "outcome"), [("at+jwt", "allowed"), ("JWT", "token_malformed")])
def test_at_jwt_can_be_required(new_verifier, ec_key, claims, typ, outcome):
    assert verdict(new_verifier(require_at_jwt=True), ec_key.sign(claims(), {"typ": typ})) == outcome


def test_the_pattern_of_organizations_can_be_chosen(new_verifier, ec_key, claims):
    verifier = new_verifier(org_id_pattern=r"[a-z]+")

    assert verifier.verify(ec_key.sign(claims(org_id="acme"))).org_id == "acme"
    assert reason_of(verifier, ec_key.sign(claims())) == "claim_invalid"


def test_the_lifetime_can_be_limited(new_verifier, ec_key, claims):
    verifier = new_verifier(max_lifetime=300)

    assert verdict(verifier, ec_key.sign(claims())) == "allowed"
    assert reason_of(verifier, ec_key.sign(claims(exp=NOW + 301))) == "claim_invalid"


def test_one_of_several_audiences_is_enough(new_verifier, ec_key, claims):
    assert verdict(new_verifier(audience=["a", "b"]), ec_key.sign(claims(aud=["b", "c"]))) == "allowed"


def test_a_slash_at_the_end_of_the_issuer_is_kept(new_verifier, ec_key, claims, transport):
    """``iss`` is compared exactly; only the address of the keys is put together."""
    verifier = new_verifier(issuer=ISSUER + "/")

    assert verdict(verifier, ec_key.sign(claims(iss=ISSUER + "/"))) == "allowed"
    assert transport.requests[0].url == JWKS_URL


def test_the_address_of_the_keys_can_be_chosen(new_verifier, token, transport):
    new_verifier(jwks_url="https://keys.example/set").verify(token)

    assert transport.requests[0].url == "https://keys.example/set"


@pytest.mark.parametrize(
    "give",
    [
        pytest.param(lambda document, _: document, id="object"),
        pytest.param(lambda document, _: json.dumps(document), id="text"),
        pytest.param(lambda document, _: "\n " + json.dumps(document), id="text-after-blanks"),
        pytest.param(lambda _, path: str(path), id="path"),
        pytest.param(lambda _, path: path, id="path-object"),
    ],
)
def test_keys_can_be_given_once_and_for_all(new_verifier, ec_key, token, tmp_path, give):
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(jwks(ec_key)))
    verifier = new_verifier(jwks=give(jwks(ec_key), path))

    verifier.warm_up()

    assert verdict(verifier, token) == "allowed"
    verifier.close()


# ---- Warming up and closing ----


def test_after_warming_up_no_call_waits(verifier, token, transport):
    verifier.warm_up()
    transport.hang()

    with pytest.raises(StopIteration):
        next(verifier.verify_flow(token))


def test_a_seed_verifies_while_the_issuer_is_down(new_verifier, ec_key, token, transport):
    transport.down()

    assert verdict(new_verifier(jwks_seed=jwks(ec_key)), token) == "allowed"


def test_a_seed_gives_way_to_what_the_issuer_publishes(new_verifier, ec_key, other_key, issuer, token):
    """Also what the seed has verified is forgotten then."""
    issuer.keys = [other_key]
    verifier = new_verifier(jwks_seed=jwks(ec_key))
    verdict(verifier, token)

    assert (reason_of(verifier, token), verdict(verifier, other_key.sign(m2m_claims()))) == ("key_not_found", "allowed")


class RecoveringTransport(FakeTransport):
    """An issuer that is down for a number of requests."""

    def __init__(self, issuer, failures):
        super().__init__(lambda: json_response(issuer.jwks()))
        self.failures = failures

    def fetch(self, *arguments, **options):
        self.down() if self.fetches < self.failures else self.up()
        return super().fetch(*arguments, **options)


@pytest.mark.parametrize(("failures", "seconds"), [(0, 0), (1, 1), (2, 3)])
def test_warming_up_tries_again_until_the_issuer_is_up(new_verifier, issuer, clock, failures, seconds):
    """Attempts after 0, 1 and 3 s, give or take a tenth."""
    transport = RecoveringTransport(issuer, failures)
    drive(new_verifier(transport=transport).warm_up_flow(5.0), clock)

    assert (transport.fetches, clock.now - NOW) == (failures + 1, pytest.approx(seconds, rel=0.11))


@pytest.mark.parametrize(("timeout", "fetches"), [(0, 1), (0.5, 1), (1.5, 2), (5.0, 3)])
def test_warming_up_ends_within_its_timeout(verifier, transport, clock, timeout, fetches):
    transport.down()
    with pytest.raises(KeySetUnavailableError):
        drive(verifier.warm_up_flow(timeout), clock)

    assert clock.now - NOW <= timeout
    assert transport.fetches == fetches


def test_warming_up_at_an_issuer_that_hangs_ends(verifier, transport, clock):
    """One wait may begin just before the end: it adds 2 s at the most."""
    transport.hang()
    with pytest.raises(KeySetUnavailableError):
        drive(verifier.warm_up_flow(5.0), clock)

    assert clock.now - NOW <= 7.0
    assert transport.fetches == 1


def test_health_tells_about_the_one_issuer(verifier, transport):
    assert {issuer: health.is_ready for issuer, health in verifier.health().items()} == {ISSUER: False}
    verifier.warm_up()

    (health,) = verifier.health().values()
    assert (health.is_ready, health.keys, health.age, transport.fetches) == (True, 1, 0.0, 1)


def test_tasks_can_warm_up(verifier, transport):
    asyncio.run(verifier.awarm_up())

    assert transport.fetches == 1


def test_warming_up_without_the_issuer_is_unavailable(verifier, transport):
    transport.down()

    with pytest.raises(KeySetUnavailableError):
        verifier.warm_up(timeout=0)


def test_closing_closes_the_transport(verifier, transport):
    verifier.close()

    assert transport.closed


# ---- Configuration ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"issuer": ""}, "^issuer: missing; give an absolute https URL", id="issuer-empty"),
        pytest.param({"issuer": None}, "^issuer: missing; ", id="issuer-missing"),
        pytest.param({"issuer": "acme.authkit.app"}, "^issuer: ", id="issuer-without-scheme"),
        pytest.param({"issuer": "http://acme.authkit.app"}, "^issuer: .* must use https", id="issuer-http"),
        pytest.param({"audience": ""}, "^audience: give the value of aud", id="audience-empty"),
        pytest.param({"audience": None}, "^audience: ", id="audience-missing"),
        pytest.param({"audience": []}, "^audience: ", id="audience-none-given"),
        pytest.param({"audience": ["a", ""]}, "^audience: ", id="audience-one-empty"),
        pytest.param({"algorithms": ["HS256"]}, "^algorithms: HS256 cannot be used", id="hs256"),
        pytest.param({"algorithms": ["none"]}, "^algorithms: none cannot be used", id="none"),
        pytest.param({"algorithms": []}, "^algorithms: none given", id="no-algorithms"),
        pytest.param({"leeway": -1}, "^leeway: -1 is not a number of seconds from 0 up to 300", id="leeway-below"),
        pytest.param({"leeway": 300.1}, "^leeway: ", id="leeway-above"),
        pytest.param({"leeway": float("nan")}, "^leeway: ", id="leeway-nan"),
        pytest.param({"max_lifetime": -1}, "^max_lifetime: -1 is not a number of seconds from 0$", id="lifetime-below"),
        pytest.param({"max_lifetime": float("inf")}, "^max_lifetime: ", id="lifetime-infinite"),
        pytest.param({"org_id_pattern": "("}, "^org_id_pattern: '\\(' is not a regular expression", id="pattern"),
        pytest.param({"token_memory": 0}, "^token_memory: 0 must be 1 or more", id="token-memory"),
        pytest.param({"max_blocked_threads": 0}, "^max_blocked_threads: ", id="blocked-threads"),
        pytest.param({"jwks_url": "http://keys.example/"}, "^jwks_url: ", id="jwks-url-http"),
        pytest.param({"jwks_url": "file:///etc/keys"}, "^jwks_url: ", id="jwks-url-file"),
        pytest.param({"jwks": {}, "jwks_url": JWKS_URL}, "^jwks: .* goes with neither jwks_url nor", id="two-sources"),
        pytest.param({"jwks": {}, "jwks_seed": {}}, "^jwks: .* neither jwks_url nor jwks_seed", id="static-and-seed"),
        pytest.param({"jwks_seed": {}}, "^jwks_seed: ", id="seed-empty"),
        pytest.param({"jwks_seed": "/nowhere/jwks.json"}, "^jwks_seed: .*No such file", id="seed-no-file"),
        pytest.param({"issuer": ISSUER + "?tenant=a"}, r"^issuer: .* must have no query", id="issuer-query"),
        pytest.param({"jwks": {}}, "^jwks: ", id="jwks-empty-object"),
        pytest.param({"jwks": '{"keys": []}'}, "^jwks: no key of the set", id="jwks-no-keys"),
        pytest.param({"jwks": "{nope"}, "^jwks: the JSON text is not JSON", id="jwks-no-json"),
        pytest.param({"jwks": '{"keys":' + "[" * 200_000}, "^jwks: the JSON text is not JSON", id="jwks-deep"),
        pytest.param({"jwks": "/nowhere/jwks.json"}, "No such file or directory", id="jwks-no-file"),
        pytest.param({"jwks": "jwks\0.json"}, "cannot be read", id="jwks-impossible-name"),
        pytest.param({"jwks": os.curdir}, "Is a directory", id="jwks-directory"),
    ],
)
def test_wrong_configuration_is_named_at_once(new_verifier, options, message):
    with pytest.raises(ConfigError, match=message):
        new_verifier(**options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"\xff\xfe", "not UTF-8 text", id="not-utf-8"),
        pytest.param(b"-----BEGIN PUBLIC KEY-----", "is not JSON", id="pem"),
        pytest.param(b"[]", "is not a JWK Set", id="array"),
    ],
)
def test_a_wrong_file_of_keys_is_named(new_verifier, tmp_path, content, message):
    path: pathlib.Path = tmp_path / "jwks.json"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=f"^jwks: file '.*jwks.json' .*{message}"):
        new_verifier(jwks=path)


@pytest.mark.parametrize("leeway", [0, 300])
def test_the_leeway_can_be_chosen(new_verifier, ec_key, claims, leeway):
    verifier = new_verifier(leeway=leeway)

    assert reason_of(verifier, ec_key.sign(claims(exp=NOW - leeway))) == "token_expired"
    assert verdict(verifier, ec_key.sign(claims(exp=NOW - leeway + 1))) == "allowed"


@pytest.mark.usefixtures("no_settings")
def test_a_verifier_can_be_built_from_the_environment(monkeypatch, ec_key):
    monkeypatch.setenv("AUTHZ_ISSUER", ISSUER)
    monkeypatch.setenv("AUTHZ_AUDIENCE", AUDIENCE)
    monkeypatch.setenv("AUTHZ_ALGORITHMS", "ES256")
    monkeypatch.setenv("AUTHZ_JWKS", json.dumps(jwks(ec_key)))

    with pytest.raises(TokenExpiredError):
        Verifier.from_env().verify(ec_key.sign(m2m_claims(1_000_000_000)))


def test_the_system_clock_decides_by_default(ec_key):
    verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, algorithms=["ES256"], jwks=jwks(ec_key))

    with pytest.raises(ClaimError):
        verifier.verify(ec_key.sign(m2m_claims(99_000_000_000)))
