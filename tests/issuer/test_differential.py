"""The same tokens judged by PyJWT and joserfc, with the same keys, algorithms, issuer, audience and leeway.

Whatever is accepted here both accept. Where one of them is more lenient, the
table names the rule by which the token is refused here.
"""

import base64
import functools
import json
import time

import joserfc.jwt
import jwt
import pytest
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError
from authz.issuer.verifier import Verifier
from authz.token.jwk import SUPPORTED_ALGORITHMS
from tests.doubles import ABSENT, AUDIENCE, CLIENT, ISSUER, ORG, jwks, m2m_claims

DAY = 86_400
LEEWAY = 10
ALGORITHMS = sorted(SUPPORTED_ALGORITHMS)

pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")  # of RFC 9864, about EdDSA


@pytest.fixture(scope="module")
def keys(rsa_key):
    """Return a key for each algorithm, whose ``kid`` is the algorithm's name."""
    numbers = rsa_key.private_jwk()
    return {
        name: SigningKey.from_jwk({**numbers, "kid": name, "alg": name})
        if name[0] in "RP"
        else SigningKey.generate(name, name)
        for name in ALGORITHMS
    }


class Judges:
    """Three verifiers of the same tokens."""

    def __init__(self, keys):
        document = jwks(*keys.values())
        self._ours = Verifier(issuer=ISSUER, audience=AUDIENCE, algorithms=ALGORITHMS, jwks=document, leeway=LEEWAY)
        self._pyjwt = jwt.PyJWKSet.from_dict(document)
        self._joserfc = KeySet.import_key_set(document)
        # RFC 7515 section 4: parameters that are not understood are ignored, unless crit names them.
        self._registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)

    def ours(self, token):
        try:
            return self._ours.verify(token).org_id
        except AuthzError as error:
            return error.reason

    def pyjwt(self, token):
        try:
            key = self._pyjwt[jwt.get_unverified_header(token)["kid"]]
            required = {"require": ["iss", "aud", "exp", "sub"]}
            jwt.decode(token, key, ALGORITHMS, options=required, audience=AUDIENCE, issuer=ISSUER, leeway=LEEWAY)
        except Exception:  # noqa: BLE001 - whatever it raises, it does not accept
            return False
        return True

    def joserfc(self, token):
        rules = joserfc.jwt.JWTClaimsRegistry(
            leeway=LEEWAY,
            iss={"essential": True, "value": ISSUER},
            aud={"essential": True, "value": AUDIENCE},
            exp={"essential": True},
            sub={"essential": True},
        )
        try:
            rules.validate(joserfc.jwt.decode(token, self._joserfc, registry=self._registry).claims)
        except Exception:  # noqa: BLE001 - whatever it raises, it does not accept
            return False
        return True


@pytest.fixture(scope="module")
def judges(keys):
    return Judges(keys)


def segment(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def now(seconds=0.0):
    """Return a time that is not known before its token is signed: the others read the clock themselves."""
    return lambda: time.time() + seconds


def second(seconds=0):
    return lambda: int(time.time()) + seconds


def good(**changes):
    # Good for a day: how long the run takes by then must not matter.
    given = {"exp": second(DAY), **changes}
    return m2m_claims(time.time(), **{name: value() if callable(value) else value for name, value in given.items()})


def claims(**changes):
    return lambda key: key.sign(good(**changes))


def header(**changes):
    return lambda key: key.sign(good(), changes)


def payload(text):
    """Sign a payload in which ``text`` is laid into that of a good token."""
    return lambda key: key.sign((json.dumps(good())[:-1] + text).encode())


def parts(change):
    return lambda key: ".".join(change(*key.sign(good()).split(".")))


def raw_header(text):
    """Sign a header that is written as ``text``, with ALG and KID for what they are."""
    return lambda key: key.sign(good(), text.replace("KID", key.kid).replace("ALG", key.algorithm).encode())


def in_encoding(encoding):
    return lambda key: key.sign(json.dumps(good()).encode(encoding))


def flattened(key):
    names = ("protected", "payload", "signature")
    return json.dumps(dict(zip(names, key.sign(good()).split("."), strict=True)))


def unsigned(key):
    return f"{segment({'alg': 'none', 'kid': key.kid})}.{segment(good())}."


def padded(key):
    """Return a token with a padded signature, or ``None`` where the signature's length needs no padding."""
    token = key.sign(good())
    padding = -len(token.rpartition(".")[2]) % 4
    return token + "=" * padding if padding else None


@functools.cache
def strangers_numbers():
    return SigningKey.generate("stranger").private_jwk()


def forged(key):
    if key.algorithm[0] in "RP":
        forger = SigningKey.from_jwk({**strangers_numbers(), "kid": key.kid, "alg": key.algorithm})
    else:
        forger = SigningKey.generate(key.kid, key.algorithm)
    return forger.sign(good())


def other_algorithm(key):
    names = {"RS256": "PS256", "PS256": "RS256", "ES256": "ES384", "ES384": "ES256"}
    return key.sign(good(), {"alg": names.get(key.algorithm, "RS256" if key.kid != "RS256" else "PS256")})


def own_key(key):
    return key.sign(good(), {"jwk": key.public_jwk()})


GOOD = {
    "as WorkOS writes it": claims(),
    "a list of one audience": claims(aud=[AUDIENCE]),
    "several audiences": claims(aud=["other", AUDIENCE]),
    "no iat": claims(iat=ABSENT),
    "no jti": claims(jti=ABSENT),
    "a long jti": claims(jti="x" * 200),
    "no scope": claims(scope=ABSENT),
    "a list of scopes": claims(scope=["a", "b"]),
    "scopes in scp": claims(scope=ABSENT, scp=["a", "b"]),
    "no client_id": claims(client_id=ABSENT),
    "a past nbf": claims(nbf=second(-60)),
    "an nbf within the leeway": claims(nbf=second(LEEWAY // 2)),
    "an iat of 1970": claims(iat=0),
    "fractions of seconds": claims(exp=now(DAY + 0.5), iat=now(-0.5)),
    "a long life": claims(exp=second(10**7)),
    "more claims": claims(more={"a": [1, None, {"b": "\u00e9"}]}),
    "a payload with blanks": lambda key: key.sign(b" \n" + json.dumps(good(), indent=2).encode() + b"\n"),
    "escaped characters": lambda key: key.sign(json.dumps(good()).replace("org_", "\\u006frg_").encode()),
    "typ JWT": header(typ="JWT"),
    "typ at+jwt": header(typ="at+jwt"),
    "typ as a media type": header(typ="application/AT+JWT"),
    "a thumbprint": header(x5t="dGh1bWI"),
    "an unknown parameter": header(unknown={"a": 1}),
}

BOUND = {"x5t#S256": "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"}

# Rule -> the reason here, and tokens which PyJWT or joserfc accepts.
STRICTER = {
    "A5: a token has at most 8192 characters": ("token_malformed", {"9000 more": claims(more="a" * 9000)}),
    "B2: base64url has no padding (RFC 7515 section 2)": (
        "token_malformed",
        {"a padded signature": padded},
    ),
    "B3: no name is given twice (RFC 7519 section 4)": (
        "token_malformed",
        {
            "two organizations": payload(',"org_id":"org_2"}'),
            "the same issuer twice": payload(f',"iss":"{ISSUER}"}}'),
            "twice, deeper": payload(',"more":{"a":1,"a":2}}'),
            "two algorithms": raw_header('{"alg":"none","alg":"ALG","kid":"KID"}'),
            "two kids": raw_header('{"alg":"ALG","kid":"other","kid":"KID"}'),
        },
    ),
    "B3: JSON is UTF-8 without a byte order mark (RFC 8259 section 8.1)": (
        "token_malformed",
        {
            "a byte order mark": in_encoding("utf-8-sig"),
            "a byte order mark in the header": raw_header('\ufeff{"alg":"ALG","kid":"KID"}'),
            "UTF-16": in_encoding("utf-16"),
            "UTF-32": in_encoding("utf-32"),
        },
    ),
    "B4: crit is refused, whatever it holds (RFC 7515 section 4.1.11)": (
        "token_malformed",
        {
            "an empty list": header(crit=[]),
            "a registered name": header(crit=["alg"]),
            "an extension the others know": header(crit=["b64"], b64=True),
        },
    ),
    "B5: b64 is refused (RFC 7797 section 7)": ("token_malformed", {"true": header(b64=True)}),
    "B7: a token brings no key along (RFC 8725 section 3.10)": (
        "token_malformed",
        {
            "jwk": own_key,
            "jku": header(jku="https://evil.example/"),
            "x5u": header(x5u="https://evil.example/"),
            "x5c": header(x5c=["MII"]),
        },
    ),
    "B9: typ is an access token's (RFC 8725 section 3.11)": (
        "token_malformed",
        {
            "a proof of possession": header(typ="dpop+jwt"),
            "a logout token": header(typ="logout+jwt"),
            "a security event": header(typ="secevent+jwt"),
            "an ID token": header(typ="id_token+jwt"),
            "no string": header(typ=5),
        },
    ),
    "B10: nothing is nested or compressed (RFC 8725 section 3.6)": (
        "token_malformed",
        {"cty": header(cty="JWT"), "zip": header(zip="DEF"), "enc": header(enc="A128GCM")},
    ),
    "B13: JSON is bounded, and has finite numbers and whole characters": (
        "token_malformed",
        {
            "NaN": payload(',"more":NaN}'),
            "Infinity": payload(',"more":-Infinity}'),
            "a number out of range": payload(',"more":1e999}'),
            "31 digits": payload(f',"more":1{"0" * 30}}}'),
            "half a character": payload(',"more":"\\ud800"}'),
            "depth": payload(f',"more":{"[" * 300}{"]" * 300}}}'),
            "NaN in the header": raw_header('{"alg":"ALG","kid":"KID","more":NaN}'),
        },
    ),
    "D3: exp is a number of this age of the world": (
        "claim_invalid",
        {
            "a string": claims(exp=lambda: str(second(300)())),
            "the year 10000": claims(exp=253_402_300_800),
            "1e308": claims(exp=1e308),
        },
    ),
    "D4: iat and nbf are numbers that are not negative": (
        "claim_invalid",
        {
            "iat a string": claims(iat="1"),
            "iat a bool": claims(iat=True),
            "iat negative": claims(iat=-1),
            "nbf a string": claims(nbf=lambda: str(second()())),
            "nbf negative": claims(nbf=-1),
        },
    ),
    "D5: sub is an application, the same as client_id (RFC 9068 section 2.2)": (
        "claim_invalid",
        {
            "another application": claims(sub="client_other"),
            "a person": claims(sub="user_01", client_id=ABSENT),
            "nobody": claims(sub="", client_id=ABSENT),
            "two lines": claims(sub="a\nb", client_id=ABSENT),
            "client_id no string": claims(client_id=5),
            "client_id null": claims(client_id=None),
        },
    ),
    "D6: no user token (RFC 8725 section 3.12)": (
        "claim_invalid",
        {"a session": claims(sid="app_consent_01"), "a session and a person": claims(sid="s", sub="user_01")},
    ),
    "D7: org_id is needed": ("claim_missing", {"absent": claims(org_id=ABSENT)}),
    "D7: org_id is an identifier that can be a header": (
        "claim_invalid",
        {
            "two lines": claims(org_id="org_a\r\nx-org-id: org_b"),
            "a list": claims(org_id=[ORG]),
            "null": claims(org_id=None),
            "empty": claims(org_id=""),
            "another form": claims(org_id="acme"),
            "two in one": claims(org_id=f"{ORG},org_2"),
            "too long": claims(org_id="org_" + "a" * 65),
        },
    ),
    "D9: no ID token (RFC 8725 section 3.12)": (
        "claim_invalid",
        {"nonce": claims(nonce="n"), "at_hash": claims(at_hash="h"), "c_hash": claims(c_hash="h")},
    ),
    "D10: scopes are words (RFC 6749 section 3.3)": (
        "claim_invalid",
        {"an object": claims(scope={}), "a quote": claims(scope='a"b'), "a number": claims(scope=[5])},
    ),
    "H1, H2, H3: no token bound to a key (RFC 7800 section 3.1)": (
        "claim_invalid",
        {
            "jkt": claims(cnf={"jkt": "t"}),
            "unknown": claims(cnf={"unknown": 1}),
            "empty": claims(cnf={}),
            "x5t": claims(cnf=BOUND),
        },
    ),
}

# Reason -> tokens that nobody accepts.
SAME = {
    "token_malformed": {
        "a newline at the end": parts(lambda head, body, signature: (head, body, signature + "\n")),
        "a blank before": parts(lambda head, body, signature: (" " + head, body, signature)),
        "a newline within": parts(lambda head, body, signature: (head, body + "\r\n", signature)),
        "two segments": parts(lambda head, body, _: (head, body)),
        "four segments": parts(lambda head, body, signature: (head, body, signature, "")),
        "five segments": parts(lambda head, body, signature: (head, body, signature, body, signature)),
        "no header": parts(lambda _, body, signature: ("", body, signature)),
        "no payload": parts(lambda head, _, signature: (head, "", signature)),
        "JSON": flattened,
        "a padded header": parts(lambda head, body, signature: (head + "=", body, signature)),
        "a padded payload": parts(lambda head, body, signature: (head, body + "=", signature)),
        "foreign characters": parts(lambda head, body, signature: (head, body, signature + "!!!!")),
        "unknown crit": header(crit=["unknown"], unknown=1),
        "crit of a claim": header(crit=["exp"]),
        "crit a string": header(crit="alg"),
        "crit null": raw_header('{"alg":"ALG","kid":"KID","crit":null}'),
        "b64 false": header(b64=False),
        "b64 false and critical": header(b64=False, crit=["b64"]),
        "kid a number": header(kid=5),
        "kid a list": header(kid=["ES256"]),
        "kid too long": header(kid="k" * 129),
        "claims a list": lambda key: key.sign(b"[]"),
        "claims and more": payload("} x"),
        "no JSON": lambda key: key.sign(b"claims"),
    },
    "algorithm_not_allowed": {
        "none": header(alg="none"),
        "none, unsigned": unsigned,
        "a MAC": header(alg="HS256"),
        "another case": header(alg="rs256"),
        "a list": header(alg=["RS256"]),
        "another curve": header(alg="ES256K"),
        "absent": header(alg=None),
    },
    "key_not_found": {"unknown kid": header(kid="nobody"), "the kid of another algorithm": other_algorithm},
    "signature_invalid": {
        "a stranger's key": forged,
        "a longer signature": parts(lambda head, body, signature: (head, body, signature + "AAAA")),
        "no signature": parts(lambda head, body, _: (head, body, "")),
        "another payload": parts(lambda head, _, signature: (head, segment(good(jti="2")), signature)),
    },
    "claim_missing": {name: claims(**{name: ABSENT}) for name in ("iss", "aud", "exp", "sub")},
    "token_expired": {"an hour ago": claims(exp=second(-3600)), "1970": claims(exp=0)},
    "claim_invalid": {
        "iss with a slash": claims(iss=ISSUER + "/"),
        "iss a list": claims(iss=[ISSUER]),
        "iss in upper case": claims(iss=ISSUER.upper()),
        "iss a part": claims(iss="acme"),
        "aud another": claims(aud=CLIENT),
        "aud a part": claims(aud=AUDIENCE[:-1]),
        "aud an object": claims(aud={AUDIENCE: 1}),
        "aud mixed": claims(aud=[AUDIENCE, 5]),
        "aud nested": claims(aud=[[AUDIENCE]]),
        "aud empty": claims(aud=[]),
        "exp a bool": claims(exp=True),
        "exp null": claims(exp=None),
        "exp negative": claims(exp=-1),
        "iat in the future": claims(iat=second(3600)),
        "nbf in the future": claims(nbf=second(3600)),
        "nbf null": claims(nbf=None),
        "sub a number": claims(sub=5, client_id=ABSENT),
        "jti a number": claims(jti=5),
        "jti null": claims(jti=None),
    },
}


def each(table):
    return [pytest.param(make, id=name) for name, make in table.items()]


def tokens_of(make, keys):
    tokens = {name: make(key) for name, key in keys.items()}
    return {name: token for name, token in tokens.items() if token is not None}


@pytest.mark.parametrize("make", each(GOOD))
def test_what_is_accepted_here_both_accept(judges, keys, make):
    for name, token in tokens_of(make, keys).items():
        assert (name, judges.ours(token), judges.pyjwt(token), judges.joserfc(token)) == (name, ORG, True, True)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(make, reason, id=f"{rule}: {name}")
        for rule, (reason, table) in STRICTER.items()
        for name, make in table.items()
    ],
)
def test_what_is_refused_here_alone_is_refused_by_a_rule(judges, keys, make, reason):
    for name, token in tokens_of(make, keys).items():
        lenient = judges.pyjwt(token) or judges.joserfc(token)

        assert (name, judges.ours(token), lenient) == (name, reason, True)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(make, reason, id=f"{reason}: {name}")
        for reason, table in SAME.items()
        for name, make in table.items()
    ],
)
def test_what_is_refused_by_all_has_its_reason(judges, keys, make, reason):
    for name, token in tokens_of(make, keys).items():
        verdicts = (judges.ours(token), judges.pyjwt(token), judges.joserfc(token))

        assert (name, *verdicts) == (name, reason, False, False)
