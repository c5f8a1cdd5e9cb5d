import base64
import functools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto.jwk import JWK

from authz.demo.issuer.signing import SigningKey
from authz.errors import ConfigError
from authz.token.encoding import base64url_decode
from authz.token.jwk import MAX_KEYS, SUPPORTED_ALGORITHMS, check_algorithms, is_kid, parse_jwk, parse_jwks
from tests.doubles import jwks

# RFC 7638 section 3.1.
RFC_7638_KEY = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3"
    "oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6q"
    "MQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzK"
    "nqDKgw",
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}

ROCA_PRIMES = [prime for prime in range(3, 168) if all(prime % divisor for divisor in range(2, prime))]


def integer(value):
    return base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8)).rstrip(b"=").decode()


def rsa_member(modulus=2**2047 + 1, exponent=65537, **more):
    return {"kty": "RSA", "kid": "k", "n": integer(modulus), "e": integer(exponent), **more}


@functools.cache
def public(algorithm):
    return SigningKey.generate("k", algorithm).public_jwk()


def ec_member(algorithm="ES256", **changes):
    """Return a public key without ``use`` and ``alg``, which are optional, with changes."""
    member = {name: value for name, value in public(algorithm).items() if name not in ("use", "alg")}
    return {**member, **changes}


def refused(member):
    with pytest.raises(ValueError, match=r".") as caught:
        parse_jwk(member)
    return str(caught.value)


# ---- C: what a key must be ----


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512", "EdDSA"])
def test_a_curve_is_for_one_algorithm(algorithm):
    assert parse_jwk(ec_member(algorithm)).algorithms == {algorithm}


def test_an_rsa_key_without_alg_is_for_all_of_rsa():
    assert parse_jwk(rsa_member()).algorithms == {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}


def test_alg_leaves_one_algorithm():
    """C1: RFC 8725 section 3.1."""
    assert parse_jwk(rsa_member(alg="PS256")).algorithms == {"PS256"}


@pytest.mark.parametrize(
    ("member", "why"),
    [
        pytest.param(ec_member(alg="ES384"), "alg", id="C1-alg-of-another-curve"),
        pytest.param(ec_member(alg="RS256"), "alg", id="C1-alg-of-another-key-type"),
        pytest.param(rsa_member(alg="ES256"), "alg", id="C1-rsa-with-an-ec-alg"),
        pytest.param(rsa_member(alg="HS256"), "alg", id="C1-rsa-with-a-mac-alg"),
        pytest.param(rsa_member(alg="RSA-OAEP"), "alg", id="C1-rsa-for-encryption"),
        pytest.param(rsa_member(alg="none"), "alg", id="C1-alg-none"),
        pytest.param(rsa_member(alg=["RS256"]), "alg", id="C1-alg-list"),
        pytest.param(rsa_member(alg={"RS256": 1}), "alg", id="C1-alg-object"),
        pytest.param(ec_member(use="enc"), "use", id="C2-use-enc"),
        pytest.param(ec_member(use=["sig"]), "use", id="C2-use-list"),
        pytest.param(ec_member(key_ops=["sign"]), "key_ops", id="C2-key-ops-sign"),
        pytest.param(ec_member(key_ops=[]), "key_ops", id="C2-key-ops-empty"),
        pytest.param(ec_member(key_ops="verify"), "key_ops", id="C2-key-ops-string"),
        pytest.param(ec_member(key_ops={"verify": 1}), "key_ops", id="C2-key-ops-object"),
        pytest.param(ec_member(key_ops=[{}, []]), "key_ops", id="C2-key-ops-not-hashable"),
        pytest.param(ec_member(use="sig", key_ops=["encrypt"]), "key_ops", id="C2-use-and-key-ops-disagree"),
        pytest.param(ec_member(use="sig", key_ops=["verify", "encrypt"]), "disagree", id="C2-key-ops-also-encrypt"),
        pytest.param(ec_member(use="sig", key_ops=["verify", {}]), "disagree", id="C2-key-ops-with-an-object"),
        pytest.param(ec_member(key_ops=["verify", "encrypt"]), "signatures", id="C2-key-ops-alone-also-encrypt"),
        pytest.param(ec_member(key_ops=["verify", 5]), "signatures", id="C2-key-ops-alone-with-a-number"),
        pytest.param(ec_member("EdDSA", alg="Ed448"), "alg", id="C1-the-other-edwards-curve"),
        pytest.param(ec_member("EdDSA", alg="ed25519"), "alg", id="C1-ed25519-in-lower-case"),
        pytest.param(ec_member(alg="Ed25519"), "alg", id="C1-ed25519-of-another-key-type"),
        pytest.param({"kty": "oct", "kid": "k", "k": None}, "secret", id="C3-oct-with-k-null"),
        pytest.param({"kty": "oct", "kid": "k", "k": "c2VjcmV0"}, "secret", id="C3-oct"),
        pytest.param({"kty": "oct", "kid": "k"}, "secret", id="C3-oct-without-k"),
        pytest.param(rsa_member(d="AQAB"), "private", id="C3-rsa-with-d"),
        pytest.param(rsa_member(p="AQAB"), "private", id="C3-rsa-with-p"),
        pytest.param(rsa_member(oth=[]), "private", id="C3-rsa-with-oth"),
        pytest.param(rsa_member(k="AQAB"), "secret", id="C3-rsa-with-k"),
        pytest.param(rsa_member(2**1023 + 1), "bits", id="C4-1024-bits"),
        pytest.param(rsa_member(2**2046 + 1), "bits", id="C4-2047-bits"),
        pytest.param(rsa_member(2**8192 + 1), "bits", id="C4-8193-bits"),
        pytest.param(rsa_member(2**20000 + 1), "bits", id="C4-20001-bits"),
        pytest.param(rsa_member(exponent=1), "exponent", id="C4-exponent-1"),
        pytest.param(rsa_member(exponent=3), "exponent", id="C4-exponent-3"),
        pytest.param(rsa_member(exponent=65535), "exponent", id="C4-exponent-65535"),
        pytest.param(rsa_member(exponent=65538), "exponent", id="C4-exponent-even"),
        pytest.param(rsa_member(exponent=2**32 + 1), "exponent", id="C4-exponent-above-2-32"),
        pytest.param(ec_member(x=ec_member()["y"], y=ec_member()["x"]), "valid", id="C5-off-curve"),
        pytest.param(ec_member(crv="P-384"), "coordinate", id="C5-point-of-another-curve"),
        pytest.param(ec_member(x=integer(1)), "coordinate", id="C5-short-coordinate"),
        pytest.param(ec_member(x=ec_member()["x"] + "AAAA"), "coordinate", id="C5-long-coordinate"),
        pytest.param(ec_member(crv="secp256k1"), "curve", id="C5-curve-of-others"),
        pytest.param(ec_member(crv="Ed25519"), "curve", id="C5-curve-of-another-key-type"),
        pytest.param(ec_member(crv=["P-256"]), "curve", id="crv-list"),
        pytest.param(ec_member(crv={}), "curve", id="crv-not-hashable"),
        pytest.param(ec_member(crv=None), "curve", id="crv-null"),
        pytest.param({"kty": "OKP", "crv": "X25519", "kid": "k", "x": ec_member("EdDSA")["x"]}, "curve", id="x25519"),
        pytest.param({"kty": "OKP", "crv": "Ed448", "kid": "k", "x": "AA"}, "curve", id="ed448"),
        pytest.param(ec_member("EdDSA", x="AA"), "coordinate", id="ed25519-short"),
        pytest.param(ec_member(y=None), "y", id="y-null"),
        pytest.param({**rsa_member(), "n": 5}, "n", id="C7-n-number"),
        pytest.param({**rsa_member(), "n": None}, "n", id="n-null"),
        pytest.param({**rsa_member(), "n": ""}, "bits", id="n-empty"),
        pytest.param({**rsa_member(), "e": ""}, "exponent", id="e-empty"),
        pytest.param({**rsa_member(), "e": "AQAB="}, "base64url", id="e-padded"),
        pytest.param({**rsa_member(), "n": "+/" + rsa_member()["n"]}, "base64url", id="n-standard-base64"),
        pytest.param({**rsa_member(), "n": "\ud800"}, "base64url", id="n-surrogate"),
        pytest.param(rsa_member() | {"kty": ["RSA"]}, "type", id="kty-list"),
        pytest.param(rsa_member() | {"kty": {}}, "type", id="kty-not-hashable"),
        pytest.param(rsa_member() | {"kty": "rsa"}, "type", id="kty-lower-case"),
        pytest.param({}, "type", id="nothing"),
        pytest.param(rsa_member(kid=5), "kid", id="kid-number"),
        pytest.param(rsa_member(kid=["k"]), "kid", id="kid-list"),
        pytest.param(rsa_member(kid=""), "kid", id="kid-empty"),
        pytest.param(rsa_member(kid="k\n"), "kid", id="kid-newline"),
        pytest.param(rsa_member(kid="é"), "kid", id="kid-not-ascii"),
        pytest.param(rsa_member(kid="k" * 129), "kid", id="kid-long"),
        pytest.param(5, "object", id="number"),
        pytest.param(None, "object", id="null"),
        pytest.param([], "object", id="array"),
        pytest.param("k", "object", id="string"),
    ],
)
def test_unfit_keys_are_refused(member, why):
    assert why in refused(member)


@pytest.mark.parametrize(
    "member",
    [
        pytest.param(ec_member(use="sig"), id="C2-use-sig"),
        pytest.param(ec_member(key_ops=["verify"]), id="C2-key-ops-verify"),
        pytest.param(ec_member(use="sig", key_ops=["sign", "verify"]), id="C2-both-agree"),
        pytest.param(ec_member(key_ops=["sign", "verify"]), id="C2-key-ops-alone-of-signatures"),
        pytest.param(rsa_member(2**2047 + 1), id="C4-2048-bits"),
        pytest.param(rsa_member(2**8191 + 1), id="C4-8192-bits"),
        pytest.param(rsa_member(exponent=2**32 - 1), id="C4-exponent-below-2-32"),
        pytest.param(ec_member(x5c=[5], x5t=None, extra={}), id="unknown-members-do-not-matter"),
        pytest.param(rsa_member(kid="k" * 128), id="kid-of-128"),
        pytest.param(rsa_member(kid=" a kid/with:everything~"), id="kid-printable"),
    ],
)
def test_fit_keys_are_taken(member):
    assert parse_jwk(member).kid == member["kid"]


@pytest.mark.parametrize("name", ["alg", "use", "key_ops", "d", "p", "oth", "k", "x5c"])
def test_a_member_that_is_null_is_absent(name):
    """C2, C3: some issuers write down every member that a key could have."""
    assert parse_jwk(rsa_member(**{name: None})) == parse_jwk(rsa_member())


def test_a_kid_that_is_null_is_absent():
    assert parse_jwk(rsa_member(kid=None)).kid is None


@pytest.mark.parametrize("name", ["EdDSA", "Ed25519"])
def test_both_names_of_ed25519_are_known(name):
    """C1: RFC 9864 section 2.2 names the algorithm after its curve."""
    assert parse_jwk(ec_member("EdDSA", alg=name)).algorithms == {"EdDSA"}
    assert check_algorithms([name]) == {"EdDSA"}


def test_a_key_of_a_weak_generator_is_refused():
    """C4: a ROCA modulus is a power of 65537 modulo every small prime; 1 is such a power."""
    step = 2 * math.prod(ROCA_PRIMES)
    modulus = step * (2**2047 // step) + 1 + step

    assert modulus.bit_length() == 2048
    assert "generator" in refused(rsa_member(modulus))


def test_the_thumbprint_is_that_of_rfc_7638():
    assert parse_jwk(RFC_7638_KEY).thumbprint == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_refusals_quote_nothing_of_the_key():
    assert "c2VjcmV0" not in refused({"kty": "oct", "k": "c2VjcmV0"})


# ---- B11, C5: what a key verifies ----


@pytest.mark.parametrize("algorithm", sorted(SUPPORTED_ALGORITHMS))
def test_a_signature_of_every_algorithm_is_verified(algorithm, rsa_key):
    signer = rsa_key if algorithm[0] in "RP" else SigningKey.generate("k", algorithm)
    if signer is rsa_key:
        signer = SigningKey.from_jwk({**rsa_key.private_jwk(), "alg": algorithm})
    signing_input, _, signature = signer.sign({}).rpartition(".")
    key = parse_jwk(signer.public_jwk())

    assert key.verify(algorithm, signing_input.encode(), base64url_decode(signature))
    assert not key.verify(algorithm, signing_input.encode() + b"x", base64url_decode(signature))


@pytest.mark.parametrize(
    ("algorithm", "size"), [("RS256", 256), ("ES256", 64), ("ES384", 96), ("ES512", 132), ("EdDSA", 64)]
)
def test_a_signature_has_one_size(algorithm, size, rsa_key):
    key = parse_jwk(rsa_key.public_jwk() if algorithm == "RS256" else public(algorithm))

    assert key.signature_size == size


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _: b"", id="B11-empty"),
        pytest.param(lambda s: s[:-1], id="B11-shorter"),
        pytest.param(lambda s: s + b"\0", id="B11-longer"),
        pytest.param(lambda s: b"\0" + s[:32] + b"\0" + s[32:], id="B11-zero-extended"),
        pytest.param(lambda _: bytes(64), id="all-zero"),
        pytest.param(lambda _: b"\xff" * 64, id="above-the-order"),
        pytest.param(lambda s: s[32:] + s[:32], id="halves-swapped"),
    ],
)
def test_damaged_signatures_are_not_verified(ec_key, damage):
    signing_input, _, signature = ec_key.sign({}).rpartition(".")
    key = parse_jwk(ec_key.public_jwk())

    assert key.verify("ES256", signing_input.encode(), base64url_decode(signature))
    assert not key.verify("ES256", signing_input.encode(), damage(base64url_decode(signature)))


def test_a_p384_key_never_verifies_es256():
    """C5: jwcrypto checks the curve on first use only, so ask twice."""
    signer = SigningKey.generate("k", "ES384")
    key = parse_jwk(signer.public_jwk())
    signing_input, _, signature = signer.sign({}).rpartition(".")
    raw = base64url_decode(signature)

    assert key.verify("ES384", signing_input.encode(), raw)
    assert not key.verify("ES256", signing_input.encode(), raw)
    assert not key.verify("ES256", signing_input.encode(), raw[:64])


@pytest.mark.parametrize("algorithm", ["RS512", "PS256", "HS256", "none", "", "RS256\0"])
def test_a_key_verifies_its_algorithm_only(rsa_key, algorithm):
    signing_input, _, signature = rsa_key.sign({}).rpartition(".")
    key = parse_jwk(rsa_key.public_jwk())

    assert not key.verify(algorithm, signing_input.encode(), base64url_decode(signature))


def test_a_key_for_one_algorithm_verifies_no_other(rsa_key):
    """C1: the numbers are the same and the signature is good, but the key's own ``alg`` decides."""
    signing_input, _, signature = rsa_key.sign({}).rpartition(".")
    key = parse_jwk({**rsa_key.public_jwk(), "alg": "PS256"})

    assert not key.verify("RS256", signing_input.encode(), base64url_decode(signature))


# ---- C6, C7: sets ----


def test_keys_are_found_by_kid(ec_key, other_key):
    ring = parse_jwks(jwks(ec_key, other_key))

    assert ring.get("ec-2").thumbprint == JWK(**other_key.public_jwk()).thumbprint()
    assert ring.get("ec-3") is None


def test_without_a_kid_the_only_key_is_found(ec_key, other_key):
    assert parse_jwks(jwks(ec_key)).get(None).kid == "ec-1"
    assert parse_jwks(jwks(ec_key, other_key)).get(None) is None


def test_a_key_without_a_kid_is_found_where_it_is_alone():
    member = ec_member()
    del member["kid"]

    assert parse_jwks({"keys": [member]}).get(None).kid is None
    assert parse_jwks({"keys": [member]}).get("k") is None


def test_two_different_keys_of_one_kid_are_both_dropped(other_key):
    """C6: if either were chosen, the other's tokens would be verified by the wrong key."""
    members = [ec_member(kid="same"), other_key.public_jwk() | {"kid": "same"}, ec_member(kid="good")]
    ring = parse_jwks({"keys": members})

    assert (set(ring.keys), ring.dropped) == ({"good"}, (("same", "two different keys of one kid"),))


def test_a_third_key_does_not_settle_an_ambiguity(other_key):
    members = [ec_member(), other_key.public_jwk() | {"kid": "k"}, ec_member()]

    assert not parse_jwks({"keys": members}).keys


def kept(*members):
    """Return which key of kid "k", by its thumbprint, verifies what, and for how many reasons one was dropped."""
    ring = parse_jwks({"keys": list(members)})
    return {key.thumbprint: set(key.algorithms) for key in ring.keys.get("k", ())}, len(ring.dropped)


ONE, ANOTHER = rsa_member(), rsa_member(2**2047 + 3)
THUMBPRINT_OF_ONE, THUMBPRINT_OF_ANOTHER = parse_jwk(ONE).thumbprint, parse_jwk(ANOTHER).thumbprint
RSA_ALGORITHMS = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_the_algorithm_chooses_among_keys_of_one_kid(algorithm):
    """C6: RFC 7517 section 4.5 has the same name for keys that its own reader cannot mistake for each other."""
    members = {"RS256": {**ONE, "alg": "RS256"}, "ES256": ec_member(), "EdDSA": ec_member("EdDSA")}
    ring = parse_jwks({"keys": list(members.values())})

    assert (len(ring), set(ring.keys), ring.dropped) == (3, {"k"}, ())
    assert ring.get("k", algorithm) == parse_jwk(members[algorithm])
    assert (ring.get("k"), ring.get("k", "ES384")) == (None, None)


def test_one_key_listed_for_several_algorithms_is_one_key():
    """C6."""
    listed = [{**ONE, "alg": name} for name in ("RS256", "RS384", "RS512")]

    assert kept(*listed) == ({THUMBPRINT_OF_ONE: {"RS256", "RS384", "RS512"}}, 0)


@pytest.mark.parametrize("listed", [(ONE, {**ONE, "alg": "RS256"}), ({**ONE, "alg": "RS256"}, ONE)])
def test_a_listing_without_alg_adds_nothing_to_one_that_has_it(listed):
    """C1: RFC 8725 section 3.1."""
    assert kept(*listed) == ({THUMBPRINT_OF_ONE: {"RS256"}}, 0)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        pytest.param([ONE, ANOTHER], {}, id="for-anything-both"),
        pytest.param([{**ONE, "alg": "RS256"}, {**ANOTHER, "alg": "RS256"}], {}, id="for-the-same"),
        pytest.param(
            [{**ONE, "alg": "RS256"}, ANOTHER],
            {THUMBPRINT_OF_ANOTHER: RSA_ALGORITHMS - {"RS256"}},
            id="for-one-and-for-anything",
        ),
        pytest.param(
            [{**ONE, "alg": "RS256"}, {**ONE, "alg": "RS384"}, {**ANOTHER, "alg": "RS384"}, ec_member()],
            {THUMBPRINT_OF_ONE: {"RS256"}, parse_jwk(ec_member()).thumbprint: {"ES256"}},
            id="for-one-of-two",
        ),
    ],
)
def test_two_keys_of_one_kid_verify_nothing_that_both_could(members, expected):
    """C6: a signature that only one of them can make is not ambiguous."""
    assert kept(*members) == (expected, 1)
    assert kept(*reversed(members)) == (expected, 1)


@pytest.mark.parametrize(("algorithm", "found"), [("RS256", True), ("ES256", True), ("RS384", False), ("EdDSA", False)])
def test_without_a_kid_the_only_key_for_the_algorithm_is_found(algorithm, found):
    """B8: keys that cannot be meant are not counted."""
    members = [{**ONE, "alg": "RS256"}, ec_member(kid="other"), {**ANOTHER, "kid": "third", "alg": "PS256"}]
    ring = parse_jwks({"keys": members})

    assert (ring.get(None, algorithm) is not None) is found
    assert parse_jwks({"keys": [*members, {**ANOTHER, "kid": "fourth"}]}).get(None, "RS256") is None


def test_a_key_that_is_held_is_that_very_object():
    ring, twin = parse_jwks({"keys": [ec_member(), ONE]}), parse_jwks({"keys": [ec_member(), ONE]})
    key = ring.get("k", "ES256")

    assert (ring.holds(key), twin.holds(key), twin.keeping(ring).holds(key)) == (True, False, True)


@pytest.mark.parametrize(
    ("members", "covered"),
    [
        pytest.param([{**ONE, "alg": "RS256"}], True, id="the-same"),
        pytest.param([{**ONE, "alg": "RS256"}, {**ONE, "alg": "RS512"}], True, id="for-more"),
        pytest.param([{**ONE, "alg": "RS512"}], False, id="for-another-algorithm"),
        pytest.param([{**ANOTHER, "alg": "RS256"}], False, id="another-key"),
        pytest.param([{**ONE, "alg": "RS256", "kid": "other"}], False, id="another-kid"),
        pytest.param([], False, id="none"),
    ],
)
def test_a_key_that_verifies_for_more_covers_it(members, covered):
    assert parse_jwks({"keys": members}).covers(parse_jwk({**ONE, "alg": "RS256"})) is covered


def test_a_key_given_twice_is_one_key():
    """C6."""
    ring = parse_jwks({"keys": [ec_member(), ec_member()]})

    assert (len(ring.keys), ring.dropped) == (1, ())


def test_a_bad_key_does_not_void_the_set():
    """C7."""
    ring = parse_jwks({"keys": [5, None, {"kty": ["RSA"]}, rsa_member() | {"n": 5}, [], ec_member()]})

    assert set(ring.keys) == {"k"}
    assert [kid for kid, _ in ring.dropped] == [None, None, None, "k", None]


def test_the_kid_of_a_dropped_key_is_printable_or_not_told():
    ring = parse_jwks({"keys": [{"kid": "evil\nline"}, {"kid": "plain"}]})

    assert [kid for kid, _ in ring.dropped] == [None, "plain"]


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({}, id="no-keys"),
        pytest.param({"keys": None}, id="C7-null"),
        pytest.param({"keys": {"k": ec_member()}}, id="object"),
        pytest.param({"keys": "k"}, id="string"),
        pytest.param({"keys": 5}, id="number"),
        pytest.param({"Keys": []}, id="upper-case"),
    ],
)
def test_a_set_needs_an_array_of_keys(document):
    with pytest.raises(ValueError, match="array"):
        parse_jwks(document)


def test_a_set_has_64_keys_at_the_most():
    members = [{"kid": str(number)} for number in range(MAX_KEYS)]

    assert len(parse_jwks({"keys": members}).dropped) == 64
    with pytest.raises(ValueError, match="more than 64"):
        parse_jwks({"keys": [*members, {}]})


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(["AQAB", "sig"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
NAMES = st.sampled_from(["kty", "crv", "x", "y", "n", "e", "d", "k", "kid", "use", "key_ops", "alg", "x5c"])


@given(st.lists(ODD | st.dictionaries(NAMES, ODD).map(lambda changes: {**rsa_member(), **changes}), max_size=3))
def test_whatever_stands_in_a_set_is_taken_or_dropped(members):
    ring = parse_jwks({"keys": members})

    assert len(ring.keys) + len(ring.dropped) <= len(members) + 1
    assert json.dumps(ring.dropped)


# ---- Names ----


@pytest.mark.parametrize("kid", ["k", "sso_oidc_key_pair_01", "../../dev/null", "' OR 1=1 --", "~" * 128])
def test_a_kid_is_short_and_printable(kid):
    assert is_kid(kid)


@pytest.mark.parametrize("kid", ["", "k" * 129, "k\n", "\tk", "k\x7f", "é", "\ud800", "k\0"])
def test_other_names_are_no_kid(kid):
    assert not is_kid(kid)


def test_one_algorithm_may_be_given_as_a_string():
    assert check_algorithms("ES256") == {"ES256"}


@pytest.mark.parametrize(
    "algorithms",
    [
        pytest.param([], id="none-given"),
        pytest.param("", id="empty"),
        pytest.param(["none"], id="B6-none"),
        pytest.param(["RS256", "HS256"], id="B6-mac"),
        pytest.param(["rs256"], id="B6-lower-case"),
        pytest.param(["RS256 "], id="B6-blank"),
        pytest.param("RS256,ES256", id="comma"),
        pytest.param(["ES256K"], id="unsupported-curve"),
        pytest.param([5], id="number"),
        pytest.param([None], id="null"),
    ],
)
def test_other_algorithms_cannot_be_allowed(algorithms):
    with pytest.raises(ConfigError, match=r"^algorithms: .* choose from ES256"):
        check_algorithms(algorithms)
