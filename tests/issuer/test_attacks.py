"""Published attacks on libraries for JWT, carried out here: what was a hole there is a refusal with its reason.

Every advisory is the id of a parameter.
Unless a test says otherwise, not even the issuer learns of the attempt.
"""

import base64
import hashlib
import hmac
import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK
from jwt import PyJWK

from authz.call.call import Call
from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError, ConfigError
from authz.issuer.remote_keys import FRESH
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.runtime.flow import run
from authz.runtime.network.transport import Transport
from authz.token.jws import verify_compact
from tests.doubles import AUDIENCE, CLIENT, ISSUER, ORG, FakeIssuer, jwks, m2m_claims
from tests.loopback import Loopback
from tests.programs import PATIENCE

DEEP = 100_000


def verdict(verifier, token):
    try:
        return verifier.verify(token).org_id
    except AuthzError as error:
        return error.reason


def segment(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.fixture(params=["RS256", "ES256"])
def key(request, rsa_key, ec_key):
    """Return the issuer's key, of the one kind and of the other."""
    return rsa_key if request.param == "RS256" else ec_key


@pytest.fixture
def issuer(key):
    return FakeIssuer(key)


@pytest.fixture
def verifier(new_verifier, key):
    return new_verifier(algorithms=[key.algorithm])


# ---- A public key as the secret of a MAC ----


def exported(encoding, form):
    return lambda jwk: PyJWK(jwk).key.public_bytes(encoding, form)


PEM = exported(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

SECRETS = [
    pytest.param(PEM, id="CVE-2017-11424"),
    pytest.param(PEM, id="CVE-2024-37568"),
    pytest.param(lambda jwk: PEM(jwk).strip(), id="CVE-2026-114615-stripped-pem"),
    pytest.param(lambda jwk: PEM(jwk).replace(b"\n", b"\r\n"), id="CVE-2026-114615-windows-pem"),
    pytest.param(exported(Encoding.OpenSSH, PublicFormat.OpenSSH), id="CVE-2022-29217"),
    pytest.param(exported(Encoding.OpenSSH, PublicFormat.OpenSSH), id="CVE-2024-33663"),
    pytest.param(exported(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), id="GHSA-r6x4-923q-g947-der"),
    pytest.param(lambda jwk: b"\xef\xbb\xbf" + PEM(jwk), id="GHSA-r6x4-923q-g947-byte-order-mark"),
    pytest.param(lambda jwk: json.dumps(jwk).encode(), id="GHSA-r6x4-923q-g947-jwk"),
    pytest.param(lambda jwk: json.dumps({"keys": [jwk]}).encode(), id="GHSA-r6x4-923q-g947-jwk-set"),
    pytest.param(lambda _: b"", id="CVE-2026-49852-empty-key"),
    pytest.param(lambda _: b"", id="CVE-2026-114616-empty-key"),
    pytest.param(lambda jwk: jwk["kid"].encode(), id="CVE-2016-7036-guessed-secret"),
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_mac_is_never_a_signature(verifier, transport, key, secret, algorithm):
    signed = f"{segment({'alg': algorithm, 'kid': key.kid})}.{segment(m2m_claims())}"
    mac = hmac.digest(secret(key.public_jwk()), signed.encode(), hashlib.new(f"sha{algorithm[2:]}").name)

    assert (verdict(verifier, f"{signed}.{segment(mac)}"), transport.fetches) == ("algorithm_not_allowed", 0)


def test_the_public_key_of_pkcs1_is_no_secret_either(new_verifier, rsa_key):
    """CVE-2017-11424: the form that the filter of that time forgot."""
    secret = exported(Encoding.PEM, PublicFormat.PKCS1)(rsa_key.public_jwk())
    signed = f"{segment({'alg': 'HS256', 'kid': rsa_key.kid})}.{segment(m2m_claims())}"
    forged = f"{signed}.{segment(hmac.digest(secret, signed.encode(), 'sha256'))}"

    assert verdict(new_verifier(algorithms=["RS256"], jwks=jwks(rsa_key)), forged) == "algorithm_not_allowed"


@pytest.mark.parametrize("algorithms", [["HS256"], ["RS256", "HS256"], ["none"], ["RS256", "none"], []])
def test_what_makes_these_attacks_cannot_even_be_configured(new_verifier, ec_key, algorithms):
    with pytest.raises(ConfigError, match=r"^algorithms: "):
        new_verifier(algorithms=algorithms)
    with pytest.raises(ConfigError, match=r"^algorithms: "):
        verify_compact(ec_key.sign(b"{}"), jwks(ec_key), algorithms)


def test_a_secret_among_the_keys_is_no_key(new_verifier, issuer, key):
    """CVE-2026-49852, CVE-2026-114616: an empty one would verify what anybody writes."""
    issuer.publishes({"keys": [{"kty": "oct", "kid": "empty", "k": ""}, key.public_jwk()]})
    verifier = new_verifier(algorithms=[key.algorithm])

    assert verdict(verifier, key.sign(m2m_claims())) == ORG
    assert verdict(verifier, key.sign(m2m_claims(), {"kid": "empty"})) == "key_not_found"


# ---- The header decides how it is checked ----


def signed_with(**header):
    return lambda key: key.sign(m2m_claims(), header)


def without_signature(**header):
    return lambda key: f"{segment({'alg': 'none', 'kid': key.kid, **header})}.{segment(m2m_claims())}."


def with_own_key(key):
    forger = SigningKey.generate(key.kid, key.algorithm)
    return forger.sign(m2m_claims(), {"jwk": forger.public_jwk()})


def unencoded(key):
    """Return a token whose payload stands there as it is (RFC 7797), signed so."""
    head = segment({"alg": key.algorithm, "kid": key.kid, "b64": False, "crit": ["b64"]})
    return f"{head}.{'A' * 4000}.{key.sign(m2m_claims()).rpartition('.')[2]}"


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        pytest.param(signed_with(crit=["unknown"], unknown=1), "token_malformed", id="CVE-2026-32597"),
        pytest.param(signed_with(crit=["bork"], bork="x"), "token_malformed", id="CVE-2025-59420"),
        pytest.param(signed_with(crit=[]), "token_malformed", id="CVE-2025-59420-empty"),
        pytest.param(signed_with(crit=["exp"]), "token_malformed", id="CVE-2025-59420-without-the-member"),
        pytest.param(unencoded, "token_malformed", id="GHSA-w7vc-732c-9m39"),
        pytest.param(signed_with(b64=False), "token_malformed", id="GHSA-w7vc-732c-9m39-not-critical"),
        pytest.param(with_own_key, "token_malformed", id="CVE-2026-27962"),
        pytest.param(without_signature(), "algorithm_not_allowed", id="CVE-2026-28802"),
        pytest.param(without_signature(alg="None"), "algorithm_not_allowed", id="CVE-2026-28802-other-case"),
        pytest.param(without_signature(alg=""), "algorithm_not_allowed", id="CVE-2026-28802-empty"),
        pytest.param(without_signature(alg=None), "algorithm_not_allowed", id="CVE-2026-28802-null"),
    ],
)
def test_a_header_cannot_soften_the_check(verifier, transport, key, forge, reason):
    assert (verdict(verifier, forge(key)), transport.fetches) == (reason, 0)


@pytest.mark.parametrize("algorithm", ["PS256", "RS512"], ids=lambda name: f"CVE-2026-48523-{name}")
def test_a_key_object_does_not_widen_the_list(new_verifier, rsa_key, algorithm):
    """The key would verify it, and says so itself; the list says no."""
    signer = SigningKey.from_jwk({**rsa_key.private_jwk(), "alg": algorithm})
    verifier = new_verifier(algorithms=["RS256"], jwks=jwks(signer))

    assert verdict(verifier, signer.sign(m2m_claims())) == "algorithm_not_allowed"
    assert verdict(verifier, signer.sign(m2m_claims(), {"alg": "RS256"})) == "key_not_found"


# ---- Texts that two readers read differently ----


def polyglot(key):
    """Return JSON in whose first name a compact token hides, with forged claims."""
    head, payload, signature = key.sign(m2m_claims()).split(".")
    forged = segment(m2m_claims(org_id="org_forged"))
    return f'{{"  {head}.{forged}.":"","protected":"{head}","payload":"{payload}","signature":"{signature}"}}'


def flattened(**unprotected):
    def forge(key):
        head, payload, signature = key.sign(m2m_claims()).split(".")
        return json.dumps({"header": unprotected, "protected": head, "payload": payload, "signature": signature})

    return forge


def general(*signatures):
    return lambda _: json.dumps({"payload": segment(m2m_claims()), "signatures": signatures})


def padded(which, padding):
    def forge(key):
        parts = key.sign(m2m_claims()).split(".")
        parts[which] += padding
        return ".".join(parts)

    return forge


def unused_bits(key):
    """Return a good token with another last character, which a lenient reader decodes to the same bytes."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = key.sign(m2m_claims())
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(polyglot, id="CVE-2022-39227"),
        pytest.param(flattened(kid="forged"), id="CVE-2026-84185"),
        pytest.param(flattened(), id="CVE-2026-84185-no-unprotected-header"),
        pytest.param(general(), id="CVE-2026-96760"),
        pytest.param(general(), id="CVE-2026-102946"),
        pytest.param(general({}), id="CVE-2026-102946-empty-member"),
        pytest.param(lambda _: json.dumps({"payload": segment(m2m_claims())}), id="CVE-2026-96760-no-signatures"),
        *(
            pytest.param(padded(which, padding), id=f"GHSA-hxm8-2xgr-2p9m-{name}-{which}")
            for which in range(3)
            for name, padding in (("padding", "="), ("newline", "\n"), ("blank", " "), ("foreign", "!!!!"))
        ),
        pytest.param(unused_bits, id="GHSA-hxm8-2xgr-2p9m-unused-bits"),
    ],
)
def test_a_text_has_one_reading_or_none(verifier, transport, key, forge):
    assert (verdict(verifier, forge(key)), transport.fetches) == ("token_malformed", 0)


# ---- Encrypted where signed is wanted ----


def encrypted(algorithm, payload=b"", **header):
    """Return claims that anybody can encrypt to the issuer's public key."""

    def forge(key):
        recipient = JWK(**{name: value for name, value in key.public_jwk().items() if name not in ("use", "alg")})
        protected = {"alg": algorithm, "enc": "A128GCM", "kid": key.kid, **header}
        message = JWE(payload or json.dumps(m2m_claims()), json.dumps(protected), algs=[algorithm, "A128GCM"])
        message.add_recipient(recipient)
        return message.serialize(compact=True)

    return forge


def many_rounds(_):
    header = {"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2s": "c2FsdA", "p2c": 2**31 - 1}
    return ".".join([segment(header), *map(segment, (b"k" * 24, b"i" * 12, b"c" * 16, b"t" * 16))])


@pytest.mark.parametrize(
    ("kind", "forge"),
    [
        pytest.param("RS256", encrypted("RSA1_5"), id="CVE-2016-6298"),
        pytest.param("RS256", encrypted("RSA-OAEP-256"), id="CVE-2022-3102"),
        pytest.param("ES256", encrypted("ECDH-ES"), id="CVE-2022-3102-elliptic"),
        pytest.param("RS256", many_rounds, id="CVE-2023-6681"),
        pytest.param("RS256", encrypted("RSA-OAEP", bytes(2_000_000), zip="DEF"), id="CVE-2024-28102"),
        pytest.param("ES256", encrypted("ECDH-ES", bytes(2_000_000), zip="DEF"), id="CVE-2024-33664"),
    ],
)
def test_what_is_encrypted_is_refused_before_anything_of_it_is_read(new_verifier, rsa_key, ec_key, kind, forge):
    key = rsa_key if kind == "RS256" else ec_key
    token = forge(key)

    assert token.count(".") == 4
    assert len(token) <= 8192  # so not for its length
    assert verdict(new_verifier(algorithms=[kind], jwks=jwks(key)), token) == "token_malformed"


# ---- Too much of it ----


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda key: key.sign(m2m_claims(), {"x": "a" * 10_000_000}), id="CVE-2025-61920-header"),
        pytest.param(lambda key: key.sign(m2m_claims()) + "A" * 10_000_000, id="CVE-2025-61920-signature"),
        pytest.param(lambda key: key.sign(b"[" * DEEP), id="GHSA-8wjv-2p76-3863-long"),
        pytest.param(lambda key: key.sign(b'{"a":' * 900 + b"1" + b"}" * 900), id="GHSA-8wjv-2p76-3863-payload"),
        pytest.param(lambda key: key.sign(b"{}", b'{"a":' * 900 + b"1" + b"}" * 900), id="GHSA-8wjv-2p76-3863-header"),
        pytest.param(lambda key: key.sign(b"[" * 5000), id="GHSA-8wjv-2p76-3863-unclosed"),
    ],
)
def test_size_and_depth_are_bounded_first(verifier, transport, key, forge):
    assert (verdict(verifier, forge(key)), transport.fetches) == ("token_malformed", 0)


# ---- Claims ----


@pytest.mark.parametrize(
    "issuer_claim",
    [
        pytest.param(ISSUER[:-1], id="CVE-2024-53861-prefix"),
        pytest.param("acme", id="CVE-2024-53861-substring"),
        pytest.param("", id="CVE-2024-53861-empty"),
        pytest.param([ISSUER], id="CVE-2026-75509"),
        pytest.param(["https://evil.example", ISSUER], id="CVE-2026-75509-several"),
        pytest.param({ISSUER: 1}, id="CVE-2026-75509-object"),
    ],
)
def test_an_issuer_is_one_string_and_the_whole_of_it(verifier, transport, key, issuer_claim):
    token = key.sign(m2m_claims(iss=issuer_claim))

    assert (verdict(verifier, token), transport.fetches) == ("claim_invalid", 0)


# ---- How keys are fetched ----


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("file:///etc/passwd", id="CVE-2026-48522-file"),
        pytest.param("ftp://acme.authkit.app/jwks", id="CVE-2026-48522-ftp"),
        pytest.param("data:application/json,{}", id="CVE-2026-48522-data"),
        pytest.param("http://acme.authkit.app/jwks", id="CVE-2026-48522-without-tls"),
    ],
)
def test_keys_come_by_https_only(new_verifier, issuer, transport, url):
    """Neither the operator nor the issuer's metadata can name anything else."""
    with pytest.raises(ConfigError, match=r"^jwks_url: "):
        new_verifier(jwks_url=url)

    issuer.publishes({"issuer": ISSUER, "jwks_uri": url})
    with pytest.raises(ConfigError, match=r"^jwks_uri: "):
        Verifier.discover(ISSUER, audience=AUDIENCE, transport=transport)
    assert transport.fetches == 1


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_a_redirect_to_other_keys_is_not_followed(new_verifier, ec_key, status):
    """GHSA-9v7f-9g4p-ffgj: an open redirect at the issuer must not become the attacker's key set."""
    transport = Transport()
    with (
        Loopback(lambda connection: connection.answer(json.dumps(jwks(ec_key)).encode())) as evil,
        Loopback(lambda connection: connection.answer(b"", f"location: {evil.url}", status=status)) as honest,
    ):
        verifier = new_verifier(jwks_url=honest.url, transport=transport)

        assert verdict(verifier, ec_key.sign(m2m_claims())) == "key_set_unavailable"
        # The verdict waits for two seconds, and a busy machine may take longer.
        assert honest.asked.wait(PATIENCE)
        verifier.close()
        assert (len(honest.requests), len(evil.requests)) == (1, 0)


def test_keys_named_by_a_token_are_not_fetched(verifier, transport, key):
    """CVE-2026-27962 by way of an address: ``jku`` and ``x5u`` are not even looked at."""
    assert verdict(verifier, key.sign(m2m_claims(), {"jku": "https://evil.example/jwks"})) == "token_malformed"
    assert verdict(verifier, key.sign(m2m_claims(), {"x5u": "https://evil.example/cert"})) == "token_malformed"
    assert transport.fetches == 0


def test_a_failed_refresh_keeps_the_keys(verifier, transport, clock, key):
    """GHSA-fhv5-28vv-h8m8: it emptied the cache there, and every caller was refused."""
    verifier.warm_up()
    transport.down()
    clock.advance(FRESH + 1)

    assert [verdict(verifier, key.sign(m2m_claims(clock.now))) for _ in range(3)] == [ORG] * 3
    assert transport.fetches == 2


def test_random_kids_are_not_a_fetch_each(verifier, transport, key):
    """GHSA-2gx3-rcp4-g85q: two for 30 s, for all of them together, after the first set."""
    verifier.warm_up()

    reasons = {verdict(verifier, key.sign(m2m_claims(), {"kid": f"random-{number}"})) for number in range(200)}

    assert (reasons, transport.fetches) == ({"key_not_found", "key_undecided"}, 3)
    assert verdict(verifier, key.sign(m2m_claims())) == ORG


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param({"kty": "RSA", "kid": "bad", "n": 5, "e": "AQAB"}, id="GHSA-w6j9-cwv2-h6wq-number"),
        pytest.param({"kty": "EC", "kid": "bad", "crv": "P-256", "x": "AA", "y": "AA"}, id="GHSA-w6j9-cwv2-h6wq-point"),
        pytest.param({"kty": "unheard-of"}, id="GHSA-w6j9-cwv2-h6wq-type"),
        pytest.param(None, id="GHSA-w6j9-cwv2-h6wq-null"),
    ],
)
def test_one_bad_key_does_not_void_the_set(verifier, issuer, key, bad):
    issuer.publishes({"keys": [bad, key.public_jwk()]})

    assert verdict(verifier, key.sign(m2m_claims())) == ORG


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * DEEP, id="GHSA-8wjv-2p76-3863-array"),
        pytest.param(b'{"keys":' * DEEP, id="GHSA-8wjv-2p76-3863-object"),
        pytest.param(b'{"keys":[' + b"[" * DEEP + b"]" * DEEP + b"]}", id="GHSA-8wjv-2p76-3863-closed"),
    ],
)
def test_a_deep_key_set_is_a_failed_fetch(verifier, issuer, transport, key, body):
    issuer.publishes(body)

    assert (verdict(verifier, key.sign(m2m_claims())), transport.fetches) == ("key_set_unavailable", 1)


@pytest.mark.parametrize("name", ["x-forwarded-client-cert", "x-client-cert", "client-cert", "ssl-client-cert"])
def test_a_header_about_a_certificate_is_not_believed(new_verifier, key, name):
    """H1, H4: whoever stole a bound token could write it."""
    authorizer = Authorizer(new_verifier(algorithms=[key.algorithm], jwks=jwks(key)))
    token = key.sign(m2m_claims(cnf={"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}))
    metadata = [("authorization", f"Bearer {token}"), (name, "Hash=6f070ad1eb1cdc0082dc30766")]

    with pytest.raises(AuthzError) as caught:
        run(authorizer.authorize(Call(method="/a.B/C", metadata=metadata)))

    assert caught.value.reason == "claim_invalid"


def test_the_honest_token_of_these_attacks_is_good(verifier, key):
    """Else every refusal above might have another cause."""
    assert verifier.verify(key.sign(m2m_claims())).client_id == CLIENT
