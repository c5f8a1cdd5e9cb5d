"""Compact JWS (RFC 7515), read strictly: its syntax, its header, its signature.

Pure: no clock, no I/O, no state. :mod:`authz.issuer.keys` knows the issuer's keys,
:mod:`authz.token.claims` what the payload means.
"""

import hashlib
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from authz.errors import AlgorithmNotAllowedError, BadSignatureError, TokenMalformedError
from authz.token.encoding import EncodingError, base64url_decode, json_object
from authz.token.jwk import VerificationKey, algorithm_name, check_algorithms, is_kid, parse_jwks

MAX_TOKEN_LENGTH = 8192
"""Characters. WorkOS's tokens have about 700; gRPC's default for all metadata of a call is 8 KiB."""

_SEGMENTS = 3

# Whether at+jwt is required (RFC 9068 section 4) -> the accepted types; WorkOS sends none.
_TYPES = {True: ("at+jwt",), False: ("at+jwt", "jwt")}

# crit and b64 change how a JWS is read; the key members let a token bring its own key;
# zip, enc and cty announce something nested. An access token needs none of them.
REFUSED_HEADERS = ("crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc", "cty")


def digest_of(token: str) -> bytes:
    """Return the hash by which ``token`` is remembered, so that memory holds no credentials.

    Raises:
        TokenMalformedError: it is too long, or not ASCII.

    """
    if len(token) > MAX_TOKEN_LENGTH or not token.isascii():
        raise TokenMalformedError("too long, or not ASCII")
    return hashlib.sha256(token.encode("ascii")).digest()


class CompactJWS(NamedTuple):
    """A JWS with valid syntax and header, and a signature that is not checked yet."""

    algorithm: str
    kid: str | None
    payload: bytes
    signing_input: bytes
    signature: bytes


def parse_compact(
    token: str, algorithms: Collection[str], *, require_kid: bool = True, require_at_jwt: bool = False
) -> CompactJWS:
    """Parse ``token``, and refuse whatever is not one canonical compact JWS.

    Args:
        token: at most 8192 characters.
        algorithms: the allow-list of ``alg`` values, compared exactly.
        require_kid: refuse a header without ``kid``.
        require_at_jwt: refuse a header whose ``typ`` is not ``at+jwt`` (RFC 9068 section 4).

    Raises:
        TokenMalformedError: RFC 7515 sections 2 to 4 and 7.1, or a header parameter that is not accepted.
        AlgorithmNotAllowedError: ``alg`` is not in ``algorithms``.

    """
    segments = token.split(".", _SEGMENTS)
    # Without a payload it is a JWS with detached content (RFC 7515 appendix F).
    if len(token) > MAX_TOKEN_LENGTH or len(segments) != _SEGMENTS or not segments[1]:
        raise TokenMalformedError("not a compact JWS of three segments and a bounded length")
    header, payload, signature = segments
    try:
        algorithm, kid = _header(header, frozenset(algorithms), require_kid, require_at_jwt)
        # The payload first, because its decoder refuses what is not ASCII.
        content = base64url_decode(payload)
        signing_input = token[: -len(signature) - 1].encode("ascii")
        return CompactJWS(algorithm, kid, content, signing_input, base64url_decode(signature))
    except EncodingError as error:
        raise TokenMalformedError(str(error)) from error


def verify_compact(token: str, jwks: Mapping[str, Any], algorithms: Collection[str]) -> bytes:
    """Return the payload of ``token`` if a key of ``jwks`` has signed it.

    Args:
        token: a compact JWS.
        jwks: a JWK Set (RFC 7517 section 5) or one JWK, as parsed JSON.
        algorithms: the allow-list of ``alg`` values.

    Raises:
        UnauthenticatedError: one of its subclasses says why.
        ConfigError: ``algorithms`` holds a name that may not be allowed.
        ValueError: ``jwks`` is neither a JWK Set nor a JWK.

    """
    jws = parse_compact(token, check_algorithms(algorithms))
    ring = parse_jwks(jwks if "keys" in jwks else {"keys": [jwks]})
    key = ring.get(jws.kid, jws.algorithm)
    if key is None:
        raise ring.missing(jws.kid)
    check_signature(jws, key)
    return jws.payload


def check_signature(jws: CompactJWS, key: VerificationKey) -> None:
    """Check that ``key`` has signed ``jws``.

    Raises:
        BadSignatureError: it has not, or it is for another algorithm (RFC 8725 section 3.1).

    """
    if not key.verify(jws.algorithm, jws.signing_input, jws.signature):
        raise BadSignatureError


# An issuer writes the same header on all tokens of one key; refusals are not remembered.
@lru_cache(128)
def _header(
    text: str,
    algorithms: frozenset[str],
    require_kid: bool,  # noqa: FBT001 - part of a cache's key
    require_at_jwt: bool,  # noqa: FBT001 - as above
    /,
) -> tuple[str, str | None]:
    header = json_object(base64url_decode(text))
    for name in REFUSED_HEADERS:
        if name in header:
            raise TokenMalformedError(f"header parameter {name!r} is not accepted")
    said = header.get("alg")
    algorithm = algorithm_name(said) if isinstance(said, str) else ""
    if algorithm not in algorithms:
        raise AlgorithmNotAllowedError
    kid = _kid(header, required=require_kid)
    _check_type(header, required=require_at_jwt)
    return algorithm, kid


def _kid(header: Mapping[str, Any], *, required: bool) -> str | None:
    if not required and "kid" not in header:
        return None
    kid = header.get("kid")
    if not isinstance(kid, str) or not is_kid(kid):
        raise TokenMalformedError("kid is missing, or not a short printable string")
    return kid


def _check_type(header: Mapping[str, Any], *, required: bool) -> None:
    if not required and "typ" not in header:
        return
    kind = header.get("typ")
    # RFC 7515 section 4.1.9: media types are compared without regard to case, and with or without "application/".
    name = kind.lower().removeprefix("application/") if isinstance(kind, str) else ""
    if name not in _TYPES[required]:
        raise TokenMalformedError("typ is not an access token's")
