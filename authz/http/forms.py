"""Writes a refusal in the protocol of its caller: gRPC, gRPC-Web, Connect or plain HTTP.

Pure. The content type decides about the form alone: a refusal is a refusal in every form.
"""

import binascii
import enum
import functools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from google.rpc.status_pb2 import Status

from authz.call.call import Entry
from authz.call.refusal import Refusal
from authz.errors import Code

# By default Envoy turns a 429 into UNAVAILABLE, which clients retry at once, and a 500 into UNKNOWN.
_NOT_AS_ENVOY_HAS_IT = frozenset({Code.RESOURCE_EXHAUSTED, Code.INTERNAL})

_END_OF_STREAM = 0x02


class Form(enum.Enum):
    """The protocols whose refusals differ."""

    GRPC = enum.auto()
    GRPC_WEB = enum.auto()
    """Binary and text alike, because its refusals have no body."""
    CONNECT_PROTO = enum.auto()
    """A stream of Connect; Connect's unary calls are plain HTTP."""
    CONNECT_JSON = enum.auto()
    HTTP = enum.auto()

    # As that of authz.errors.Code.
    __hash__ = object.__hash__


class Answer(NamedTuple):
    """The HTTP answer to a caller who is refused.

    Attributes:
        status: of HTTP.
        headers: the headers of the refusal.
        body: the text of the body; for gRPC Envoy makes the status message of it.

    """

    status: int
    headers: tuple[Entry, ...]
    body: str


_GRPC_WEB = "application/grpc-web"
_STREAMS = {"application/connect+proto": Form.CONNECT_PROTO, "application/connect+json": Form.CONNECT_JSON}
_KINDS = {form: kind for kind, form in _STREAMS.items()}


def form_of(kinds: Sequence[str]) -> Form:
    """Return the form for a request with these values of ``content-type``.

    It is gRPC if and only if Envoy takes the request for gRPC: Envoy then turns the refusal into a gRPC status.
    """
    if len(kinds) != 1:
        return Form.HTTP
    [kind] = kinds
    # A caller may make up others, and must not fill the memory with long ones.
    return _remembered(kind) if len(kind) <= _LONGEST_REMEMBERED else _form_of(kind)


def _form_of(kind: str) -> Form:
    if kind == "application/grpc" or kind.startswith("application/grpc+"):
        return Form.GRPC
    media_type = kind.partition(";")[0].rstrip().lower()
    if media_type == _GRPC_WEB or media_type.startswith((f"{_GRPC_WEB}+", f"{_GRPC_WEB}-text")):
        return Form.GRPC_WEB
    return _STREAMS.get(media_type, Form.HTTP)


_remembered = functools.lru_cache(256)(_form_of)
_LONGEST_REMEMBERED = 128


def answer(refusal: Refusal, form: Form) -> Answer:
    """Return ``refusal`` in a form that its caller's client reads: with its code, message and details."""
    match form:
        case Form.GRPC:
            status = _grpc_status(refusal) if refusal.code in _NOT_AS_ENVOY_HAS_IT else ()
            return Answer(refusal.http_status, (*refusal.trailers, *status), refusal.message)
        case Form.GRPC_WEB:
            # All in headers: clients that see a status other than 200 do not read the gRPC status.
            message = Entry("grpc-message", refusal.message)
            kind = Entry("content-type", f"{_GRPC_WEB}+proto")
            return Answer(200, (*refusal.trailers, *_grpc_status(refusal), message, kind), "")
        case Form.CONNECT_PROTO | Form.CONNECT_JSON:
            kind = Entry("content-type", _KINDS[form])
            return Answer(200, (*refusal.headers, kind), _end_of_stream({"error": _connect_error(refusal)}))
        case Form.HTTP:
            body = {"error": refusal.message, **_connect_error(refusal)}
            kind = Entry("content-type", "application/json")
            return Answer(refusal.http_status, (*refusal.headers, kind), json.dumps(body))


def whole_answer(refusal: Refusal, form: Form) -> Answer:
    """Return ``refusal`` as its client gets it: what Envoy makes of :func:`answer`, where there is no Envoy."""
    if form is not Form.GRPC:
        return answer(refusal, form)
    # Trailers only: "gRPC over HTTP2", Responses.
    message, kind = Entry("grpc-message", refusal.message), Entry("content-type", "application/grpc")
    return Answer(200, (kind, *_grpc_status(refusal), message, *refusal.trailers), "")


def _grpc_status(refusal: Refusal) -> tuple[Entry, ...]:
    return (Entry("grpc-status", str(refusal.code.value)),)


def _connect_error(refusal: Refusal) -> dict[str, Any]:
    """Return an ``Error`` of the Connect protocol; its codes are gRPC's in lower case."""
    details = [
        {"type": detail.type_url.rpartition("/")[2], "value": _unpadded(detail.value)}
        for detail in Status.FromString(refusal.details).details
    ]
    return {"code": refusal.code.name.lower(), "message": refusal.message, "details": details}


def _unpadded(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode("ascii").rstrip("=")


def _end_of_stream(message: dict[str, Any]) -> str:
    """Return an ``EndStreamResponse`` of the Connect protocol in its envelope: flags, length in four bytes, JSON.

    Envoy takes it as text, so every byte of the length must be below 128; blanks are added until it is.
    """
    text = json.dumps(message)
    length = len(text)
    while not length.to_bytes(4).isascii():
        length += 1
    return bytes([_END_OF_STREAM, *length.to_bytes(4)]).decode("ascii") + text.ljust(length)
