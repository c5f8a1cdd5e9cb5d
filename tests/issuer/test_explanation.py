"""Why a token is refused: what was found, what was expected, and which setting decides."""

import json

import pytest

from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError, KeySetUnavailableError, PeerUnknownError
from authz.issuer.explanation import Explanation, explain, explain_reason, unverified
from authz.issuer.verifier import Verifier
from authz.issuer.verifiers import Verifiers
from authz.settings.variables import SETTINGS
from tests.doubles import AUDIENCE, ISSUER, NOW, FakeTransport, jwks, m2m_claims

OTHER = "https://other.example"


@pytest.fixture(scope="module")
def unfit_key():
    return SigningKey.generate("unfit-1")


@pytest.fixture
def new_verifier(clock, ec_key, unfit_key):
    def new(**options):
        keys = {"keys": [*jwks(ec_key)["keys"], {**unfit_key.public_jwk(), "use": "enc"}]}
        given = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["ES256"], "jwks": keys, **options}
        return Verifier(**given, clock=clock.clock)

    return new


def refusal(verifier, token):
    with pytest.raises(AuthzError) as caught:
        verifier.verify(token)
    return caught.value


def why(verifier, token):
    explanation = explain(refusal(verifier, token), token, verifier)
    assert explanation is not None
    assert set(explanation.settings) <= SETTINGS
    return explanation


AN_APPLICATION = "a token of an application: sub is client_id, no sid, sub does not begin with user_"
OF_KIND = ("token_profile", "client_id_claim", "allow_user_tokens")
OF_ORG = ("org_id_pattern", "org_id_claim")
OF_SEVERAL = "an id that matches org_[A-Za-z0-9]{1,64}"
BOUND = "no cnf, or one with x5t#S256 alone that names the caller's certificate"
SCOPES = "scopes with blanks between them, 2048 characters at most"
SECONDS = "a number of seconds since 1970, before the year 10000"
UTC = "2027-01-15 08:00:00 UTC"

CLAIMS = [
    pytest.param({"iss": OTHER}, {}, (f'iss is "{OTHER}"', f'"{ISSUER}"', ("issuer",)), id="iss"),
    pytest.param({"iss": ...}, {}, ("no iss", f'"{ISSUER}"', ("issuer",)), id="no-iss"),
    pytest.param({"aud": ["a", 5]}, {}, ('aud is ["a", 5]', f'"{AUDIENCE}"', ("audience",)), id="aud"),
    pytest.param({"aud": "b"}, {"audience": ["d", "c"]}, ('aud is "b"', '"c" or "d"', ("audience",)), id="audiences"),
    pytest.param({"org_id": ...}, {}, ("no org_id", OF_SEVERAL, OF_ORG), id="org"),
    pytest.param(
        {"org_id": "acme"},
        {"org_id_pattern": "a"},
        ('org_id is "acme"', "an id that matches a", OF_ORG),
        id="org-pattern",
    ),
    pytest.param({"sub": "user_1"}, {}, ('sub is "user_1"', AN_APPLICATION, OF_KIND), id="person"),
    pytest.param({"sid": "session_1"}, {}, ('sid is "session_1"', AN_APPLICATION, OF_KIND), id="session"),
    pytest.param({"client_id": 5}, {}, ("client_id is 5", AN_APPLICATION, OF_KIND), id="client"),
    pytest.param({"cnf": {"jkt": "x"}}, {}, ('cnf is {"jkt": "x"}', BOUND, ()), id="cnf"),
    pytest.param({"nonce": "n"}, {}, ("nonce, which ID tokens have", "an access token", ()), id="id-token"),
    pytest.param({"scope": 5}, {}, ("scope is 5", SCOPES, ()), id="scope"),
    pytest.param({"jti": 5}, {}, ("jti is 5", "a string", ()), id="jti"),
    pytest.param({"exp": "soon"}, {}, ('exp is "soon"', SECONDS, ()), id="exp"),
    pytest.param({"exp": ...}, {}, ("no exp", SECONDS, ()), id="no-exp"),
    pytest.param({"iat": ...}, {"max_lifetime": 60}, ("no iat", SECONDS, ("max_lifetime",)), id="no-iat"),
    pytest.param(
        {"iat": NOW, "exp": NOW + 300},
        {"max_lifetime": 60},
        ("exp is 300 s after iat", "at most 60 s", ("max_lifetime",)),
        id="lifetime",
    ),
]


@pytest.mark.parametrize(("changes", "options", "explanation"), CLAIMS)
def test_a_claim_is_explained(new_verifier, ec_key, changes, options, explanation):
    claims = {name: value for name, value in m2m_claims(**changes).items() if value is not ...}

    assert why(new_verifier(**options), ec_key.sign(claims)) == explanation


def test_a_time_is_explained_by_both_clocks(new_verifier, ec_key):
    expired = why(new_verifier(leeway=2.5), ec_key.sign(m2m_claims(iat=0, exp=int(NOW) - 3600)))
    early = why(new_verifier(), ec_key.sign(m2m_claims(nbf=int(NOW) + 60)))

    assert expired.found.startswith(
        f"exp is {NOW - 3600:.0f} (2027-01-15 07:00:00 UTC), 3600 s ago by the clock here ({UTC})"
    )
    assert expired[1:] == ("later than now, and 2.5 s for clocks that differ", ("leeway",))
    assert early.found.startswith(f"nbf is {NOW + 60:.0f} (2027-01-15 08:01:00 UTC), in 60 s by the clock here")
    assert early[1:] == ("not later than now, and 10 s for clocks that differ", ("leeway",))


UNFIT = 'header: kid is "unfit-1", alg is "ES256"; the issuer\'s key of this kid cannot be used: use is not sig'
FOR_ANOTHER = 'header: kid is "ec-1", alg is "RS256"; the issuer\'s key of this kid is for another alg'

LONG = "k" * 128
ENVELOPES = [
    pytest.param("", {}, ("1 segment, 0 characters: no JWT", ()), id="empty"),
    pytest.param(
        "Bearer a.b.c", {}, ("3 segments, 12 characters, and the word Bearer before them", ()), id="bearer-three"
    ),
    pytest.param("bearer x", {}, ("1 segment, 8 characters, and the word Bearer before them", ()), id="bearer"),
    pytest.param("a.b.c.d.e", {}, ("5 segments, 9 characters: an encrypted token (JWE)", ()), id="jwe"),
    pytest.param("a" * 9000 + ".b.c", {}, ("3 segments, 9004 characters", ()), id="long"),
    pytest.param("x.y.z", {}, ("a header that is not one JSON object in base64url", ()), id="no-header"),
    pytest.param({"crit": ["b64"]}, {}, ('header: crit is ["b64"]', ()), id="crit"),
    pytest.param({"kid": None}, {}, ("header: no kid", ("allow_missing_kid",)), id="no-kid"),
    pytest.param({"kid": "\u202e"}, {}, ('header: kid is "\\u202e"', ()), id="odd-kid"),
    pytest.param({"typ": "id"}, {}, ('header: typ is "id"', ()), id="typ"),
    pytest.param({}, {"require_at_jwt": True}, ("header: no typ", ("require_at_jwt",)), id="no-typ"),
    pytest.param({"alg": "RS256"}, {}, ('header: alg is "RS256"', ("algorithms",)), id="alg"),
    pytest.param({"alg": "HS256"}, {}, ('header: alg is "HS256"', ()), id="never-alg"),
    pytest.param({"kid": LONG}, {}, (f'header: kid is "{LONG}", alg is "ES256"', ("jwks_url",)), id="kid"),
    pytest.param({"kid": "unfit-1"}, {}, (UNFIT, ("jwks_url",)), id="dropped"),
    pytest.param(
        {"alg": "RS256"}, {"algorithms": ["ES256", "RS256"]}, (FOR_ANOTHER, ("jwks_url",)), id="key-for-another-alg"
    ),
]


@pytest.mark.parametrize(("header", "options", "explanation"), ENVELOPES)
def test_the_envelope_is_explained(new_verifier, ec_key, header, options, explanation):
    token = header
    if isinstance(header, dict):
        token = ec_key.sign(m2m_claims(), header)

    assert why(new_verifier(**options), token)[::2] == explanation


def test_what_is_expected_of_a_key_is_said(new_verifier, ec_key):
    verifier = new_verifier()

    assert why(verifier, ec_key.sign(m2m_claims(), {"kid": "x"})).expected == (
        'a key of the issuer\'s that verifies this alg; it has "ec-1"'
    )
    assert why(verifier, ec_key.sign(m2m_claims(), {"alg": "RS256"})).expected == '"ES256"'
    assert "can never be allowed" in why(verifier, ec_key.sign(m2m_claims(), {"alg": "none"})).expected


def test_a_signature_by_another_key_is_explained(new_verifier, ec_key):
    explanation = why(new_verifier(), SigningKey.generate(ec_key.kid, "ES256").sign(m2m_claims()))

    assert explanation.found == 'a signature that is not by the issuer\'s key; header: kid is "ec-1", alg is "ES256"'
    assert explanation.settings == ("jwks",)


def test_keys_that_cannot_be_had_are_explained(clock, ec_key):
    error = KeySetUnavailableError(cause="certificate")
    verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, transport=FakeTransport(lambda: None), clock=clock.clock)
    found, _, settings = explain(error, ec_key.sign(m2m_claims()), verifier)

    assert found.startswith("certificate: No trusted authority vouches for the server")
    assert settings == ("jwks_url", "ca_file")


def test_a_certificate_that_cannot_be_shown_is_explained(new_verifier, ec_key):
    token = ec_key.sign(m2m_claims(cnf={"x5t#S256": "A" * 43}))
    verifier = new_verifier()

    assert isinstance(refusal(verifier, token), PeerUnknownError)
    assert why(verifier, token).expected.startswith("a call over TLS with the certificate")


def test_each_issuer_is_explained_by_its_own_rules(new_verifier, ec_key):
    both = Verifiers(
        new_verifier(), new_verifier(issuer=OTHER, audience="b"), organizations={ISSUER: "org_A.*", OTHER: "org_B.*"}
    )

    assert why(both, ec_key.sign(m2m_claims(iss=OTHER, aud="a"))).expected == '"b"'
    assert why(both, ec_key.sign(m2m_claims(iss="https://third.example"))).expected == f'"{ISSUER}" or "{OTHER}"'
    assert why(both, ec_key.sign(m2m_claims(org_id="org_B1"))) == (
        'org_id is "org_B1"',
        f"an organization that {ISSUER} may name",
        (),
    )


def test_what_is_shown_is_bounded_text_of_one_line(new_verifier, ec_key):
    token = ec_key.sign(m2m_claims(aud=["\u202e\n\x1b[2J" * 30]))
    found = why(new_verifier(), token).found

    assert found.startswith('aud is ["')
    assert len(found) <= 210
    assert (found.isascii(), found.isprintable()) == (True, True)


@pytest.mark.parametrize(("changes", "options", "explanation"), CLAIMS)
def test_no_explanation_has_the_signature(new_verifier, ec_key, changes, options, explanation):
    assert explanation
    claims = {name: value for name, value in m2m_claims(**changes).items() if value is not ...}
    token = ec_key.sign(claims)

    assert token.rpartition(".")[2] not in json.dumps(why(new_verifier(**options), token))


# ---- Of another process ----


@pytest.mark.parametrize(
    ("reason", "found"),
    [
        ("token_expired", "exp is 1800000300"),
        ("algorithm_not_allowed", 'header: alg is "ES256"'),
        ("key_not_found", 'header: kid is "ec-1", alg is "ES256"'),
        ("key_undecided", 'header: kid is "ec-1", alg is "ES256"'),
        ("signature_invalid", "a signature that is not by"),
        ("claim_invalid", f'iss is "{ISSUER}"; aud is "{AUDIENCE}"; exp is 1800000300; sub is'),
        ("claim_missing", f'iss is "{ISSUER}"; aud is "{AUDIENCE}"; exp is 1800000300; sub is'),
    ],
)
def test_a_reason_of_another_process_is_explained_as_far_as_can_be(ec_key, reason, found):
    explanation = explain_reason(reason, ec_key.sign(m2m_claims(exp=1_800_000_300)), NOW)

    assert explanation.found.startswith(found)
    assert set(explanation.settings) <= SETTINGS


@pytest.mark.parametrize("reason", ["", "policy_denied", "quota_exceeded", "key_set_unavailable", "internal"])
def test_a_reason_that_is_not_the_tokens_is_not_explained_by_it(ec_key, reason):
    assert explain_reason(reason, ec_key.sign(m2m_claims()), NOW) is None


def test_what_is_no_token_is_explained_too():
    assert explain_reason("token_malformed", "opaque", NOW).found == "1 segment, 6 characters: no JWT"
    assert explain_reason("claim_invalid", "opaque", NOW) is None
    assert unverified("a.b") == (None, None)


def test_settings_are_told_as_flags():
    assert Explanation("f", "e", ("jwks_url", "leeway")).as_data() == {
        "found": "f",
        "expected": "e",
        "setting": "--jwks-url, --leeway",
    }
