"""The bearer token of a call (RFC 6750 section 2.1)."""

import string
from collections.abc import Iterable, Sequence
from hashlib import sha256

from authz.call.call import Call
from authz.errors import TokenMalformedError, TokenMissingError
from authz.token.jws import MAX_TOKEN_LENGTH

# Those of a compact JWS. No comma: two headers that Envoy joins into one are not a token.
_TOKEN_CHARACTERS = f"{string.ascii_letters}{string.digits}_.-".encode()
_MAX_CREDENTIALS = len("Bearer ") + MAX_TOKEN_LENGTH


def bearer_token(call: Call) -> str:
    """Return the one bearer token of a call.

    Raises:
        TokenMissingError: there is no ``authorization``.
        TokenMalformedError: there are several, or it is not ``Bearer`` and a token.

    """
    credentials = credentials_of(call)
    if not credentials:
        raise TokenMissingError
    value = credentials[0]
    if len(credentials) > 1 or len(value) > _MAX_CREDENTIALS or not isinstance(value, str):
        raise TokenMalformedError("more than one authorization, or one that is too long")
    # RFC 9110 section 11.1: the scheme in any case; RFC 6750 section 2.1: exactly one space.
    scheme, _, token = value.partition(" ")
    foreign = token.encode(errors="replace").translate(None, _TOKEN_CHARACTERS)
    if scheme.lower() != "bearer" or not token or foreign:
        raise TokenMalformedError("authorization is not a scheme Bearer, one space and a token")
    return token


def digest_at_hand(call: Call) -> bytes | None:
    """Return :func:`authz.token.jws.digest_of` what the call shows where a token is usual, be it one or not.

    It is for looking up whether that was verified before, which only a token can have been. ``None`` says that
    :func:`bearer_token` must look more closely.
    """
    credentials = credentials_of(call)
    if len(credentials) != 1:
        return None
    value = credentials[0]
    if not isinstance(value, str) or value[:7] != "Bearer " or len(value) > _MAX_CREDENTIALS or not value.isascii():
        return None
    return sha256(value[7:].encode()).digest()


def credentials_of(call: Call) -> Sequence[str | bytes]:
    """Return every value of ``authorization`` that came with a call."""
    return _credentials(call.metadata) if call.credentials is None else call.credentials


def _credentials(metadata: Iterable[tuple[str, str | bytes]]) -> list[str | bytes]:
    # gRPC refuses names with capitals, but may have begun the RPC already: a second value so named is an error too.
    entries = [entry for entry in metadata if entry[0].lower() == "authorization"]
    return [value for _, value in entries] if any(key == "authorization" for key, _ in entries) else []
