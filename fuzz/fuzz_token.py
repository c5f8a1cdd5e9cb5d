"""Tokens: any text must be refused unless a known key has signed it."""

import base64
import json
import random
import re
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from authz.call.call import Call
from authz.call.principal import Principal
from authz.errors import AuthzError, TokenMalformedError
from authz.token.bearer import bearer_token
from authz.token.jws import verify_compact
from fuzz.subjects import (
    ALGORITHMS,
    ED,
    ES,
    JWKS,
    STRANGER,
    TOKEN,
    Mutate,
    as_json,
    change,
    new_verifier,
    read_once,
    segment,
    unsegment,
)
from tests.doubles import AUDIENCE, CLIENT, ISSUER, NOW, ORG

_VERIFIER = new_verifier()

_LEEWAY = 10
_REFUSED = {"crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc", "cty"}


def check(data: bytes) -> None:
    """Verify one text, and check the result independently."""
    text = data.decode("utf-8", "surrogateescape")
    principal = _verdict(text)
    is_plain = _is_plain(text)
    if principal is not None:
        assert is_plain, "verified, but a call cannot carry it"
        assert is_signed(text), "verified, but not signed"
        header, claims = (read_once(unsegment(part)) for part in data.split(b".")[:2])
        assert not _REFUSED & header.keys(), "verified, but the header is wrong"
        assert are_good(claims), "verified, but the claims are wrong"
        assert (principal.org_id, principal.subject) == (claims["org_id"], claims["sub"])
        assert _VERIFIER.verify(text) is principal, "the second verdict differs"
    # Reads the keys anew, which is most of the work: one text in four is enough.
    if len(data) % 4 == 0:
        try:
            payload = verify_compact(text, JWKS, ALGORITHMS)
        except AuthzError:
            assert principal is None or "kid" not in json.loads(unsegment(data.split(b".")[0])), "two readings"
        else:
            assert is_plain
            assert is_signed(text), "accepted, but not signed"
            assert payload == unsegment(data.split(b".")[1])


def _verdict(text: str) -> Principal | None:
    try:
        return _VERIFIER.verify(text)
    except AuthzError:
        return None


def _is_plain(text: str) -> bool:
    try:
        return bearer_token(Call(method="/a.B/C", metadata=[("authorization", f"bearer {text}")])) == text
    except TokenMalformedError:
        return False


def is_signed(text: str) -> bool:
    """Say whether one of the keys has signed exactly this text, by cryptography alone."""
    parts = [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in text.split(".")]
    if ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) != text:
        return False
    header, _, signature = parts
    algorithm = json.loads(header)["alg"]
    signed = text.rpartition(".")[0].encode()
    try:
        if algorithm == "EdDSA":
            _ED_PUBLIC.verify(signature, signed)
        else:
            r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
            _ES_PUBLIC.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return algorithm in ALGORITHMS


def are_good(claims: dict[str, Any]) -> bool:
    """Say whether the claims are an M2M token's, by a check as short as possible."""
    audience = claims["aud"]
    return (
        claims["iss"] == ISSUER
        and (audience == AUDIENCE or (isinstance(audience, list) and AUDIENCE in audience))
        and claims["exp"] > NOW - _LEEWAY
        and all(claims.get(name, 0) <= NOW + _LEEWAY for name in ("nbf", "iat"))
        and "sid" not in claims
        and "cnf" not in claims
        and claims["sub"] == claims.get("client_id", claims["sub"])
        and not claims["sub"].startswith("user_")
        and re.fullmatch(r"org_[A-Za-z0-9]{1,64}", claims["org_id"]) is not None
    )


_ED_PUBLIC = ed25519.Ed25519PublicKey.from_public_bytes(unsegment(ED.public_jwk()["x"].encode()))
_ES_PUBLIC = ec.EllipticCurvePublicNumbers(
    *(int.from_bytes(unsegment(ES.public_jwk()[name].encode())) for name in "xy"), ec.SECP256R1()
).public_key()

_HEADERS = ("alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc", "cty", "x")
_HEADER_VALUES = ("EdDSA", "ES256", "none", "HS256", "ed", "es", "JWT", "at+jwt", "dpop+jwt", ED.public_jwk(), ["exp"])
_CLAIMS = ("iss", "aud", "sub", "client_id", "org_id", "exp", "iat", "nbf", "jti", "scope", "scp", "sid", "cnf", "x")
_CLAIM_VALUES = (
    *(ISSUER, AUDIENCE, [AUDIENCE], ["x", AUDIENCE], CLIENT, "user_1", ORG, [ISSUER], "a b", ["a", "b"]),
    {"x5t#S256": "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"},
    *(NOW, NOW - 10, NOW - 9.5, NOW + 10, NOW + 11, int(NOW) + 300),
)
_CHARACTERS = b'=+/-_.,: \t\n\0\r"{}[]eyA\xff'


def mutate(data: bytes, seed: int, libfuzzer: Mutate) -> bytes:
    """Change a token: a segment's text, its content, or both, and sign it again."""
    dice = random.Random(seed)
    parts = (data if data.count(b".") == 2 else TOKEN.encode()).split(b".")  # noqa: PLR2004 - the dots of a JWS
    how = dice.randrange(8)
    if how == 0:
        return libfuzzer(data)
    if how == 1:
        place = dice.randrange(len(data) + 1)
        return data[:place] + bytes([dice.choice(_CHARACTERS)]) + data[place + dice.randrange(2) :]
    if how == 2:  # noqa: PLR2004 - one of the ways
        good = TOKEN.encode().split(b".")
        return b".".join(dice.choice((*parts, *good)) for _ in range(dice.choice((3, 3, 3, 2, 5))))
    if how == 3:  # noqa: PLR2004 - one of the ways
        which = dice.randrange(3)
        parts[which] = segment(libfuzzer(unsegment(parts[which])))
        return b".".join(parts)
    header, payload = _object(parts[0]), _object(parts[1])
    if how < 6:  # noqa: PLR2004 - two of the ways
        change(payload, _CLAIMS, _CLAIM_VALUES, dice)
    elif dice.randrange(2):
        change(header, _HEADERS, _HEADER_VALUES, dice)
    signer = dice.choice((ED, ED, ED, ED, ES, STRANGER))
    if "kid" in header and dice.randrange(8):
        header.update(alg=signer.algorithm, kid=signer.kid)
    raw = as_json(payload, dice)
    if how == 7:  # noqa: PLR2004 - one of the ways
        raw = libfuzzer(raw)
    return signer.sign(raw, as_json(header, dice)).encode()


def _object(part: bytes) -> dict[str, Any]:
    try:
        value = json.loads(unsegment(part))
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {}
