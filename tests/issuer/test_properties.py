"""What holds for every input: a refusal or a principal comes out, and a principal only of what was signed."""

import base64
import json

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jwt import PyJWK

from authz.call.call import Call
from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError, TokenMalformedError, TokenMissingError, UnauthenticatedError
from authz.issuer.verifier import Verifier
from authz.token.bearer import bearer_token
from authz.token.jws import verify_compact
from tests.doubles import AUDIENCE, ISSUER, ORG, ManualClock, jwks, m2m_claims

ALGORITHMS = ("RS256", "ES256", "EdDSA")
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

# The fixtures here hold no state that one example could leave to the next.
shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
thorough = settings(shared, max_examples=400)


@pytest.fixture(scope="module")
def keys(rsa_key, ec_key):
    return {"RS256": rsa_key, "ES256": ec_key, "EdDSA": SigningKey.generate("ed-1", "EdDSA")}


class Judge:
    """Both ways to ask about a text, with a refusal as ``None``; anything but a refusal fails the test."""

    def __init__(self, keys):
        self._jwks = jwks(*keys.values())
        self._verifier = Verifier(
            issuer=ISSUER, audience=AUDIENCE, jwks=self._jwks, algorithms=ALGORITHMS, clock=ManualClock().clock
        )

    def principal(self, text):
        try:
            return self._verifier.verify(text)
        except AuthzError:
            return None

    def payload(self, text):
        try:
            return verify_compact(text, self._jwks, ALGORITHMS)
        except UnauthenticatedError:
            return None


@pytest.fixture(scope="module")
def judge(keys):
    return Judge(keys)


@pytest.fixture(scope="module")
def good(keys):
    """Return two good tokens of each algorithm, which differ in their payload only."""
    return {
        name: [key.sign(m2m_claims()), key.sign(m2m_claims(jti="another", org_id="org_2"))]
        for name, key in keys.items()
    }


# ---- No input makes anything else come out ----

any_text = st.text(st.characters(), max_size=120)
"""Half surrogate pairs too, which ``st.text()`` leaves out."""

token_like = st.lists(st.text('eyJ0aA_-=+/{}"\n\ud800é', max_size=20), max_size=6).map(".".join)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@thorough
@given(any_text | token_like)
@example("\ud800")
@example(".\ud800.")
@example("eyJ.\udcff.e30")
def test_any_text_is_refused(judge, text):
    assert (judge.principal(text), judge.payload(text)) == (None, None)


@thorough
@given(st.sampled_from(range(3)), any_text, st.sampled_from(["whole", "before", "after"]))
def test_any_text_in_a_segment_is_refused(judge, good, which, text, how):
    parts = good["EdDSA"][0].split(".")
    parts[which] = {"whole": text, "before": text + parts[which], "after": parts[which] + text}[how]
    changed = ".".join(parts)

    if changed not in good["EdDSA"]:
        assert (judge.principal(changed), judge.payload(changed)) == (None, None)


HEADERS = ("alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5c", "zip", "cty", "other")


@thorough
@given(st.dictionaries(st.sampled_from(HEADERS), json_values, min_size=1, max_size=3))
def test_any_signed_header_is_read_or_refused(judge, keys, changes):
    header = json.dumps({"alg": "EdDSA", "kid": "ed-1", **changes}).encode()
    token = keys["EdDSA"].sign(m2m_claims(), header)
    principal = judge.principal(token)

    assert (judge.payload(token) is not None) == (principal is not None)
    if principal is not None:
        assert changes.keys() == {"other"}


CLAIMS = ("iss", "aud", "sub", "client_id", "org_id", "exp", "iat", "nbf", "jti", "scope", "scp", "sid", "cnf", "other")


@thorough
@given(st.dictionaries(st.sampled_from(CLAIMS), json_values, min_size=1, max_size=3))
def test_any_signed_claims_name_their_organization_or_are_refused(judge, keys, changes):
    principal = judge.principal(keys["EdDSA"].sign(m2m_claims(**changes)))

    if principal is not None:
        assert (principal.org_id, principal.issuer) == (ORG, ISSUER)
        assert not changes.keys() & {"iss", "sub", "client_id", "org_id", "sid", "cnf"}


@shared
@given(st.binary(max_size=200), st.none() | st.binary(max_size=100))
def test_any_signed_bytes_are_refused(judge, keys, payload, header):
    token = keys["EdDSA"].sign(payload, header)

    assert judge.principal(token) is None
    assert judge.payload(token) in {None, payload}


names = st.sampled_from(["authorization", "Authorization", "authorization-bin", "cookie"]) | any_text
values = any_text | st.binary(max_size=20) | any_text.map("Bearer {}".format) | st.from_regex(r"(?i)bearer [\w.-]+")


@thorough
@given(st.lists(st.tuples(names, values), max_size=3))
def test_any_metadata_holds_one_bearer_token_or_none(metadata):
    credentials = [value for name, value in metadata if name == "authorization"]
    try:
        token = bearer_token(Call(method="/a.B/C", metadata=metadata))
    except TokenMissingError:
        assert not credentials
    except TokenMalformedError:
        assert credentials
    else:
        assert [value.lower() for value in credentials] == [f"bearer {token}".lower()]
        assert token.isascii()
        assert token.replace(".", "").replace("-", "").replace("_", "").isalnum()


# ---- No change of a good token is good, unless it is still the same token ----


def decoded(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def encoded(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def is_signed(key, algorithm, text):
    """Say whether ``key`` has signed ``text``, by cryptography alone."""
    signed, _, signature = text.rpartition(".")
    public, raw = PyJWK(key.public_jwk()).key, decoded(signature)
    try:
        if algorithm == "EdDSA":
            public.verify(raw, signed.encode())
        elif algorithm == "RS256":
            public.verify(raw, signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        else:
            numbers = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
            public.verify(encode_dss_signature(*numbers), signed.encode(), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def inserted(text, _other, place, new):
    place %= len(text)
    return text[:place] + new + text[place:]


def replaced(text, _other, place, new):
    place %= len(text)
    return text[:place] + new + text[place + len(new) :]


def cut(text, _other, place, length):
    place %= len(text)
    return text[:place] + text[place + length :]


def recased(text, _other, place, length):
    place %= len(text)
    return text[:place] + text[place : place + length].swapcase() + text[place + length :]


def bit_flipped(text, _other, place, bit):
    parts = text.split(".")
    raw = bytearray(decoded(parts[place % 3]))
    raw[place % len(raw)] ^= 1 << bit
    parts[place % 3] = encoded(bytes(raw))
    return ".".join(parts)


def reordered(text, _other, order):
    parts = text.split(".")
    return ".".join(parts[which] for which in order)


def mixed(text, other, mine):
    pairs = zip(text.split("."), other.split("."), mine, strict=True)
    return ".".join(ours if is_mine else theirs for ours, theirs, is_mine in pairs)


def reencoded(text, _other, which):
    parts = text.split(".")
    parts[which] = base64.b64encode(decoded(parts[which])).decode()
    return ".".join(parts)


def mirrored(text, _other=""):
    """Return ``text`` with its ECDSA signature's twin, which verifies as well: (r, n - s) for (r, s)."""
    signed, _, signature = text.rpartition(".")
    raw = decoded(signature)
    twin = (P256_ORDER - int.from_bytes(raw[32:64])) % 2**256
    return f"{signed}.{encoded(raw[:32] + twin.to_bytes(32) + raw[64:])}"


def change(function, *arguments):
    return st.tuples(*arguments).map(lambda given: lambda text, other: function(text, other, *given))


places = st.integers(0, 5000)
lengths = st.integers(1, 9)
texts = st.text("ABCyz019-_.=+/ \n\0é\ud800", min_size=1, max_size=4)

changes = st.one_of(
    change(inserted, places, texts),
    change(replaced, places, texts),
    change(cut, places, lengths),
    change(recased, places, lengths),
    change(bit_flipped, places, st.integers(0, 7)),
    change(reordered, st.permutations(range(3))),
    change(mixed, st.tuples(*[st.booleans()] * 3)),
    change(reencoded, st.sampled_from(range(3))),
    change(mirrored),
)


@pytest.mark.long
@settings(shared, max_examples=1500)
@given(st.sampled_from(ALGORITHMS), changes)
def test_no_change_of_a_good_token_is_good_unless_nothing_signed_has_changed(judge, keys, good, algorithm, changed_by):
    one, other = good[algorithm]
    changed = changed_by(one, other)

    principal = judge.principal(changed)

    assert (judge.payload(changed) is not None) == (principal is not None)
    if principal is not None:
        assert changed.rpartition(".")[0] in {one.rpartition(".")[0], other.rpartition(".")[0]}
        assert is_signed(keys[algorithm], algorithm, changed)
        assert principal.org_id == json.loads(decoded(changed.split(".")[1]))["org_id"]


def test_the_changes_that_are_still_the_same_token_are_good(judge, good):
    """Else the property above would hold of a verifier that refuses everything."""
    assert judge.principal(mirrored(good["ES256"][0])).org_id == ORG
    assert all(judge.principal(token) for pair in good.values() for token in pair)
