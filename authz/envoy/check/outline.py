"""How large Envoy's question is, measured before it is parsed.

The time to parse grows with the number of parts, not of bytes: a megabyte of headers may take longer than a hundred
megabytes of body. So for a large question a bounded number of tags and lengths is read first ("Protocol Buffers
Encoding"), down to its headers.
"""

from typing import Any

from authz.call.call import MAX_ENTRIES, malformed
from authz.envoy.v3.external_auth_pb2 import AttributeContext, CheckRequest

MAX_QUESTION_BYTES = 4 * 1024 * 1024
"""One question, including the body that it shows: gRPC's default."""

MAX_FIELDS = 2 * MAX_ENTRIES
"""Fields of a question that is not small: the headers, and what else Envoy tells."""

# A question of this size is parsed in a millisecond, whatever is in it. Envoy accepts 60 KiB of headers by default.
SMALL = 64 * 1024

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


def size_without_body(question: bytes) -> int:
    """Return how many bytes a serialized ``CheckRequest`` has without the body that it shows, or a few more.

    Raises:
        PermissionDeniedError: it is too large, has too many parts, or is no such message.

    """
    if len(question) <= SMALL:
        return len(question)
    if len(question) > MAX_QUESTION_BYTES:
        raise malformed()
    fields, size = 0, len(question)
    parts = [(0, len(question), _QUESTION)]
    while parts:
        at, end, known = parts.pop()
        while at < end:
            fields += 1
            tag, at = _varint(question, at)
            kind, inner = tag & 7, known.get(tag >> 3)
            length, at = _length(question, at, kind)
            if fields > MAX_FIELDS or at + length > end:
                raise malformed()
            if inner is _BODY:
                size -= length
            elif inner is not None:
                parts.append((at, at + length, inner))
            at += length
    return size


def _length(question: bytes, at: int, kind: int) -> tuple[int, int]:
    """Return the length of a field's value, and where it begins."""
    if kind == _BYTES:
        return _varint(question, at)
    if kind == _VARINT:
        return 0, _varint(question, at)[1]
    if kind in (_FIXED_32, _FIXED_64):
        return (4 if kind == _FIXED_32 else 8), at
    raise malformed()


def _varint(question: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(question[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004 - this bit says whether another byte follows
            return value, at + index + 1
    raise malformed()


def _number(message: Any, field: str) -> int:
    number: int = message.DESCRIPTOR.fields_by_name[field].number
    return number


_Known = dict[int, Any]
"""The fields of a message to look into, by their numbers."""

_BODY: _Known = {}
_HEADERS: _Known = {}
_HTTP: _Known = {
    _number(AttributeContext.HttpRequest, "body"): _BODY,
    _number(AttributeContext.HttpRequest, "raw_body"): _BODY,
    _number(AttributeContext.HttpRequest, "header_map"): _HEADERS,
}
_REQUEST: _Known = {_number(AttributeContext.Request, "http"): _HTTP}
_ATTRIBUTES: _Known = {_number(AttributeContext, "request"): _REQUEST}
_QUESTION: _Known = {_number(CheckRequest, "attributes"): _ATTRIBUTES}
