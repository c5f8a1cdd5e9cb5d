import base64
import json

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws as joserfc_jws
from joserfc.jwk import import_key

from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError, BadSignatureError, KeyNotFoundError
from authz.token.encoding import base64url_decode
from authz.token.jws import MAX_TOKEN_LENGTH, parse_compact, verify_compact
from tests.doubles import jwks

ES256 = frozenset({"ES256"})
PAYLOAD = b'{"iss":"joe",\r\n "exp":1300819380,\r\n "http://example.com/is_root":true}'


def segment(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token(header, payload=b"{}", signature=b"s" * 64):
    return ".".join(map(segment, (header, payload, signature)))


def with_header(**changes):
    return token({"alg": "ES256", "kid": "k", **changes})


def reason_of(text, algorithms=ES256, **options):
    with pytest.raises(AuthzError) as caught:
        parse_compact(text, algorithms, **options)
    return caught.value.reason


def reason_or_kid(text):
    try:
        return parse_compact(text, ES256).kid
    except AuthzError as error:
        return error.reason


GOOD = with_header()


# ---- Syntax and header ----


def test_a_compact_jws_is_taken_apart():
    parsed = parse_compact(token({"alg": "ES256", "kid": "k"}, b"payload", b"signature"), ES256)

    assert (parsed.algorithm, parsed.kid, parsed.payload, parsed.signature) == ("ES256", "k", b"payload", b"signature")
    assert parsed.signing_input.decode() == f"{segment({'alg': 'ES256', 'kid': 'k'})}.{segment(b'payload')}"


FLATTENED = json.dumps({"protected": segment({"alg": "ES256"}), "payload": segment(b"{}"), "signature": "cw"})
HEADER, PAYLOAD_SEGMENT, SIGNATURE = GOOD.split(".")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="B1-empty"),
        pytest.param("a", id="B1-one-segment"),
        pytest.param("a.b", id="B1-two-segments"),
        pytest.param("..", id="B1-empty-segments"),
        pytest.param(f".{PAYLOAD_SEGMENT}.{SIGNATURE}", id="B1-no-header"),
        pytest.param(f"{HEADER}..{SIGNATURE}", id="B1-no-payload"),
        pytest.param(GOOD + ".", id="B1-four-segments"),
        pytest.param("a.b.c.d.e", id="B1-jwe"),
        pytest.param(FLATTENED, id="B1-flattened-json"),
        pytest.param('{"payload":"e30","signatures":[]}', id="B1-general-json-without-signatures"),
        pytest.param('{"' + GOOD + '":"","payload":"e30","protected":"e30","signature":"cw"}', id="B1-polyglot"),
        pytest.param("[" + json.dumps(GOOD) + "]", id="B1-list"),
        pytest.param(GOOD + "\n", id="A4-newline"),
        pytest.param("\n" + GOOD, id="A4-newline-first"),
        pytest.param(GOOD + "\0", id="A4-nul"),
        pytest.param(GOOD + "é", id="A4-not-ascii"),
        pytest.param(GOOD + "\ud800", id="A4-surrogate"),
        pytest.param(f"é{GOOD}", id="A4-not-ascii-in-the-header"),
        pytest.param(f"{HEADER}.é{PAYLOAD_SEGMENT}.{SIGNATURE}", id="A4-not-ascii-in-the-payload"),
        pytest.param(GOOD.replace(".", "\uff0e"), id="A4-full-width-dots"),
        pytest.param(" " + GOOD, id="B2-leading-blank"),
        pytest.param(f"{HEADER}=.{PAYLOAD_SEGMENT}.{SIGNATURE}", id="B2-padded-header"),
        pytest.param(f"{HEADER}.{PAYLOAD_SEGMENT}=.{SIGNATURE}", id="B2-padded-payload"),
        pytest.param(f"{HEADER}.{PAYLOAD_SEGMENT}.{SIGNATURE}==", id="B2-padded-signature"),
        pytest.param(f"{HEADER}.{PAYLOAD_SEGMENT}.++//", id="B2-standard-alphabet"),
        pytest.param(f"{HEADER}.{PAYLOAD_SEGMENT}.YR", id="B2-unused-bits-of-the-signature"),
        pytest.param(f"{HEADER}.YR.{SIGNATURE}", id="B2-unused-bits-of-the-payload"),
        pytest.param(f"{HEADER}.a.{SIGNATURE}", id="B2-impossible-length"),
        pytest.param("a" * 3000 + "." + "a" * 3000 + "." + "a" * 3000, id="A5-too-long"),
        pytest.param(token(b'{"alg":"none","alg":"ES256","kid":"k"}'), id="B3-alg-twice"),
        pytest.param(token(b'{"alg":"ES256","kid":"j","kid":"k"}'), id="B3-kid-twice"),
        pytest.param(token(b'{"alg":"ES256","kid":"k","x":[{"y":1,"y":2}]}'), id="B3-twice-nested"),
        pytest.param(token(b'\xef\xbb\xbf{"alg":"ES256","kid":"k"}'), id="B3-byte-order-mark"),
        pytest.param(token(b'{"alg":"ES256","kid":"\xff"}'), id="B3-not-utf-8"),
        pytest.param(token(["ES256"]), id="B3-array"),
        pytest.param(token(b"ES256"), id="B3-no-json"),
        pytest.param(with_header(crit=["foo"]), id="B4-crit-unknown"),
        pytest.param(with_header(crit=[]), id="B4-crit-empty-list"),
        pytest.param(with_header(crit="alg"), id="B4-crit-string"),
        pytest.param(with_header(crit=["exp"], exp=1), id="B4-crit-exp"),
        pytest.param(with_header(crit=["alg"]), id="B4-crit-alg"),
        pytest.param(with_header(crit=None), id="B4-crit-null"),
        pytest.param(with_header(b64=False), id="B5-b64-false"),
        pytest.param(with_header(b64=True), id="B5-b64-true"),
        pytest.param(with_header(b64=False, crit=["b64"]), id="B5-b64-critical"),
        pytest.param(with_header(jwk={"kty": "EC"}), id="B7-jwk"),
        pytest.param(with_header(jku="https://evil.example/jwks"), id="B7-jku"),
        pytest.param(with_header(x5u="https://evil.example/cert"), id="B7-x5u"),
        pytest.param(with_header(x5c=["MII"]), id="B7-x5c"),
        pytest.param(with_header(jwk=None), id="B7-jwk-null"),
        pytest.param(token({"alg": "ES256"}), id="B8-kid-missing"),
        pytest.param(with_header(kid=5), id="B8-kid-number"),
        pytest.param(with_header(kid=None), id="B8-kid-null"),
        pytest.param(with_header(kid=["k"]), id="B8-kid-list"),
        pytest.param(with_header(kid={}), id="B8-kid-object"),
        pytest.param(with_header(kid=""), id="B8-kid-empty"),
        pytest.param(with_header(kid="k" * 129), id="B8-kid-129"),
        pytest.param(with_header(kid="k\n"), id="B8-kid-newline"),
        pytest.param(with_header(kid="é"), id="B8-kid-not-ascii"),
        pytest.param(with_header(typ="secevent+jwt"), id="B9-typ-security-event"),
        pytest.param(with_header(typ="logout+jwt"), id="B9-typ-logout"),
        pytest.param(with_header(typ="dpop+jwt"), id="B9-typ-dpop"),
        pytest.param(with_header(typ="JOSE"), id="B9-typ-jose"),
        pytest.param(with_header(typ=""), id="B9-typ-empty"),
        pytest.param(with_header(typ=5), id="B9-typ-number"),
        pytest.param(with_header(typ=None), id="B9-typ-null"),
        pytest.param(with_header(typ=["JWT"]), id="B9-typ-list"),
        pytest.param(with_header(typ="application/dpop+jwt"), id="B9-typ-dpop-in-full"),
        pytest.param(with_header(typ="application/application/jwt"), id="B9-typ-application-twice"),
        pytest.param(with_header(typ="application/"), id="B9-typ-nothing-of-application"),
        pytest.param(with_header(typ="text/jwt"), id="B9-typ-of-another-tree"),
        pytest.param(with_header(typ="application/jwt; q=1"), id="B9-typ-with-a-parameter"),
        pytest.param(with_header(typ="\uff2a\uff37\uff34"), id="B9-typ-full-width"),
        pytest.param(with_header(cty="JWT"), id="B10-cty"),
        pytest.param(with_header(zip="DEF"), id="B10-zip"),
        pytest.param(with_header(enc="A256GCM"), id="B10-enc"),
        pytest.param(token(b'{"alg":"ES256","kid":"k","x":NaN}'), id="B13-nan"),
        pytest.param(token(b'{"alg":"ES256","kid":"k","x":' + b"9" * 5000 + b"}"), id="B13-long-integer"),
        pytest.param(token(b'{"alg":"ES256","kid":"\\ud800"}'), id="B13-surrogate"),
        pytest.param(token(b"[" * 6000), id="B13-deep-array"),
        pytest.param(token(b'{"a":' * 1100 + b"1" + b"}" * 1100), id="B13-deep-object"),
        pytest.param("[" * 100_000, id="B13-deep-text"),
    ],
)
def test_whatever_is_not_one_plain_jws_is_malformed(text):
    assert reason_of(text) == "token_malformed"


@pytest.mark.parametrize(
    "algorithm",
    [
        *(
            "none",
            "None",
            "nOnE",
            "NONE",
            "",
            "HS256",
            "hs256",
            "rs256",
            "es256",
            "ES256 ",
            "ES256\0",
            "RS256",
            "ES384",
        ),
        *([], ["ES256"], {}, {"ES256": 1}, 5, 1.5, True, None),
    ],
    ids=lambda value: f"B6-{value!r}".replace("\0", "0"),
)
def test_other_algorithms_are_not_allowed(algorithm):
    """B6: whatever is not exactly on the list, strings or not."""
    assert reason_of(with_header(alg=algorithm)) == "algorithm_not_allowed"


def test_a_header_without_alg_is_not_allowed():
    assert reason_of(token({"kid": "k"})) == "algorithm_not_allowed"


def test_alg_none_with_a_blank_signature_is_not_allowed():
    assert reason_of(token({"alg": "none", "kid": "k"}, signature=b"")) == "algorithm_not_allowed"


def test_a_token_may_have_8192_characters():
    header = segment({"alg": "ES256", "kid": "k"})
    longest = f"{header}.{'A' * (MAX_TOKEN_LENGTH - len(header) - 2 - 4)}.AAAA"
    # base64url has no texts of 4n + 1 characters, so the payload is one of the other lengths.
    assert len(longest) == MAX_TOKEN_LENGTH
    assert (len(longest) - len(header) - 6) % 4 != 1

    assert parse_compact(longest, ES256).kid == "k"
    assert reason_of(longest.replace(".AAAA", ".AAAAAA")) == "token_malformed"


@pytest.mark.parametrize("kid", ["../../dev/null", "' OR '1'='1", "http://evil.example/", "k" * 128])
def test_a_kid_is_only_a_name(kid):
    """B8: nothing is opened, queried or fetched by it."""
    assert parse_compact(with_header(kid=kid), ES256).kid == kid


def test_kid_may_be_made_optional():
    assert parse_compact(token({"alg": "ES256"}), ES256, require_kid=False).kid is None


def test_an_optional_kid_must_be_right_where_it_is():
    assert reason_of(with_header(kid=None), require_kid=False) == "token_malformed"


@pytest.mark.parametrize(
    "typ",
    [
        *("JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"),
        *("application/jwt", "APPLICATION/JWT"),
    ],
)
def test_types_of_access_tokens_are_taken_in_any_case(typ):
    assert parse_compact(with_header(typ=typ), ES256).algorithm == "ES256"


@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt", "At+JWT"])
def test_at_jwt_can_be_required(typ):
    assert parse_compact(with_header(typ=typ), ES256, require_at_jwt=True).algorithm == "ES256"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(GOOD, id="absent"),
        pytest.param(with_header(typ="JWT"), id="jwt"),
        pytest.param(with_header(typ="application/jwt"), id="jwt-in-full"),
    ],
)
def test_a_required_at_jwt_is_required(text):
    assert reason_of(text, require_at_jwt=True) == "token_malformed"


def test_unknown_header_parameters_do_not_matter():
    """RFC 7515 section 4: parameters that are not understood must be ignored, unless crit names them."""
    assert parse_compact(with_header(x5t="abc", foo={"bar": []}), ES256).kid == "k"


@given(st.text(max_size=200))
def test_any_text_is_a_jws_or_a_refusal(text):
    assert reason_or_kid(text) in {"token_malformed", "algorithm_not_allowed"}


@given(st.binary(max_size=40), st.binary(max_size=8), st.binary(max_size=8))
def test_any_segments_are_a_jws_or_a_refusal(header, payload, signature):
    assert reason_or_kid(token(header, payload, signature)) in {"token_malformed", "algorithm_not_allowed"}


# ---- Signatures ----

SIGNERS = {
    "pyjwt": lambda key, algorithm: jwt.encode(
        {"sub": "c"}, jwt.PyJWK(key.private_jwk()), algorithm, headers={"kid": "k"}
    ),
    "joserfc": lambda key, algorithm: joserfc_jws.serialize_compact(
        {"alg": algorithm, "kid": "k"}, b'{"sub":"c"}', import_key(key.private_jwk()), algorithms=[algorithm]
    ),
}


@pytest.mark.parametrize("signer", SIGNERS)
@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256", "PS384", "ES256", "ES384", "ES512", "EdDSA"])
@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")  # joserfc warns of RFC 9864 about EdDSA
def test_tokens_of_other_libraries_are_verified(signer, algorithm, rsa_key):
    is_rsa = algorithm[0] in "RP"
    key = (
        SigningKey.from_jwk({**rsa_key.private_jwk(), "kid": "k", "alg": algorithm})
        if is_rsa
        else SigningKey.generate("k", algorithm)
    )

    payload = verify_compact(SIGNERS[signer](key, algorithm), jwks(key), [algorithm])

    assert json.loads(payload) == {"sub": "c"}


def test_one_jwk_serves_as_a_set(ec_key):
    assert verify_compact(ec_key.sign(b"payload"), ec_key.public_jwk(), ["ES256"]) == b"payload"


@pytest.mark.parametrize(
    ("payload", "damage"),
    [
        pytest.param(b"other", lambda signature: signature, id="other-payload"),
        pytest.param(b"payload", lambda _: b"", id="B11-empty"),
        pytest.param(b"payload", lambda signature: signature[:-1], id="B11-shorter"),
        pytest.param(b"payload", lambda signature: signature + b"\0", id="B11-longer"),
        pytest.param(b"payload", lambda signature: signature[::-1], id="reversed"),
    ],
)
def test_a_damaged_token_has_a_bad_signature(ec_key, payload, damage):
    head, _, signature = ec_key.sign(b"payload").split(".")
    damaged = f"{head}.{segment(payload)}.{segment(damage(base64url_decode(signature)))}"

    with pytest.raises(BadSignatureError):
        verify_compact(damaged, jwks(ec_key), ["ES256"])


def test_another_key_of_the_same_kid_has_a_bad_signature(ec_key):
    forger = SigningKey.generate(ec_key.kid, "ES256")

    with pytest.raises(BadSignatureError):
        verify_compact(forger.sign(b"{}"), jwks(ec_key), ["ES256"])


def test_the_header_is_signed_too(ec_key):
    head, payload, signature = ec_key.sign(b"{}").split(".")
    forged = segment({"alg": "ES256", "kid": ec_key.kid, "typ": "at+jwt"})

    with pytest.raises(BadSignatureError):
        verify_compact(f"{forged}.{payload}.{signature}", jwks(ec_key), ["ES256"])
    assert forged != head


def test_a_malleated_signature_is_another_text_of_the_same_token(ec_key):
    """B12: (r, n - s) verifies too, so a token's identity is its jti and never its text."""
    head, payload, signature = ec_key.sign(b'{"jti":"t"}').split(".")
    raw = base64url_decode(signature)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    mirrored = raw[:32] + (order - int.from_bytes(raw[32:])).to_bytes(32)

    twin = f"{head}.{payload}.{segment(mirrored)}"

    assert mirrored != raw
    assert verify_compact(twin, jwks(ec_key), ["ES256"]) == b'{"jti":"t"}'


def test_an_unknown_kid_is_not_found(ec_key, other_key):
    with pytest.raises(KeyNotFoundError):
        verify_compact(other_key.sign(b"{}"), jwks(ec_key), ["ES256"])


def test_a_key_of_another_algorithm_is_not_found(rsa_key):
    """C1: the key says RS256, so a PS256 signature of the same key is not looked at."""
    signer = SigningKey.from_jwk({**rsa_key.private_jwk(), "alg": "PS256"})

    with pytest.raises(KeyNotFoundError):
        verify_compact(signer.sign(b"{}"), jwks(rsa_key), ["RS256", "PS256"])


def test_the_algorithm_chooses_among_keys_of_one_kid(ec_key, rsa_key):
    """C6: RFC 7517 section 4.5."""
    members = [ec_key.public_jwk(), {**rsa_key.public_jwk(), "kid": "ec-1"}]
    signer = SigningKey.from_jwk({**rsa_key.private_jwk(), "kid": "ec-1"})

    for key in (ec_key, signer):
        assert verify_compact(key.sign(b"{}"), {"keys": members}, ["ES256", "RS256"]) == b"{}"


@pytest.mark.parametrize("allowed", ["EdDSA", "Ed25519"])
@pytest.mark.parametrize("said", ["EdDSA", "Ed25519"])
@pytest.mark.parametrize("listed", ["EdDSA", "Ed25519"])
def test_both_names_of_ed25519_mean_the_same(allowed, said, listed):
    """B6: RFC 9864 section 2.2."""
    key = SigningKey.generate("k", "EdDSA")
    members = {"keys": [{**key.public_jwk(), "alg": listed}]}

    assert verify_compact(key.sign(b"{}", {"alg": said}), members, [allowed]) == b"{}"


@pytest.mark.parametrize("said", ["Ed448", "ed25519", "EDDSA"])
def test_other_names_of_edwards_curves_are_not_allowed(said):
    assert reason_of(with_header(alg=said), frozenset({"EdDSA"})) == "algorithm_not_allowed"
