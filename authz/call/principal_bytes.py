"""A principal as a serialized ``authz.v1.Principal``, quicker than protobuf writes one.

What an application says of itself is the same in all of its tokens: protobuf writes that once, and the few fields that
each token has for itself are written here ("Protocol Buffers Encoding").
"""

import functools
import math

from google.protobuf.timestamp_pb2 import Timestamp

from authz.call.principal import Principal
from authz.v1.principal_pb2 import Principal as PrincipalMessage

_APPLICATIONS = _TIMES = 1024

_Said = tuple[str, str, str, frozenset[str], str, tuple[str, ...], str]
"""What all tokens of an application say alike."""

# Tags: the number of the field, and how it is written.
_TOKEN_ID, _ISSUED_AT, _EXPIRES_AT, _KEY_ID = b"\x3a", b"\x42", b"\x4a", b"\x52"


def principal_bytes(principal: Principal) -> bytes:
    """Return ``principal`` as protobuf serializes its message, byte for byte."""
    head, tail = _application(_said_by_application(principal))
    token_id, key_id = _text(_TOKEN_ID, principal.token_id), _text(_KEY_ID, principal.key_id)
    issued_at = b"" if principal.issued_at is None else _time(_ISSUED_AT, principal.issued_at)
    return b"".join((head, token_id, issued_at, _time(_EXPIRES_AT, principal.expires_at), key_id, tail))


def _said_by_application(principal: Principal) -> _Said:
    return (
        principal.org_id,
        principal.client_id,
        principal.subject,
        principal.scopes,
        principal.issuer,
        principal.audience,
        principal.tenant,
    )


@functools.lru_cache(_APPLICATIONS)
def _application(said: _Said) -> tuple[bytes, bytes]:
    """Return what comes before the fields of the token, and after them: fields are written by their numbers."""
    org_id, client_id, subject, scopes, issuer, audience, tenant = said
    before = PrincipalMessage(
        org_id=org_id,
        client_id=client_id,
        subject=subject,
        scopes=sorted(scopes),
        issuer=issuer,
        audience=audience,
    )
    return before.SerializeToString(), PrincipalMessage(tenant=tenant).SerializeToString()


def field(tag: bytes, value: bytes) -> bytes:
    """Return a field whose length is written before it: text, bytes or a message."""
    return b"%b%b%b" % (tag, varint(len(value)), value)


def varint(number: int) -> bytes:
    """Return a number as protobuf writes it: seven bits in each byte, the lowest first."""
    if number < 0x80:  # noqa: PLR2004 - this bit says whether another byte follows
        return _BYTES[number]
    written = bytearray()
    while number >= 0x80:  # noqa: PLR2004 - as above
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


_BYTES = tuple(bytes([number]) for number in range(0x80))


def _text(tag: bytes, text: str) -> bytes:
    return field(tag, text.encode()) if text else b""


# Tokens that are issued in the same second, or end in it.
@functools.lru_cache(_TIMES)
def _time(tag: bytes, seconds: float) -> bytes:
    return field(tag, timestamp(seconds).SerializeToString())


def timestamp(seconds: float) -> Timestamp:
    """Return a POSIX time as protobuf has it."""
    whole = math.floor(seconds)
    return Timestamp(seconds=whole, nanos=int((seconds - whole) * 1e9))
