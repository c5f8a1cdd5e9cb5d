"""What Envoy shows of a request's body, and the messages of gRPC in it.

Pure. Envoy shows a body only where it is told to (``with_request_body``), and must show bytes (``pack_as_bytes``): as
text it replaces what is not UTF-8, and the upstream would be sent another message than the one that was looked at.
"""

from collections.abc import Iterator

from authz.envoy.v3.external_auth_pb2 import AttributeContext, CheckRequest
from authz.errors import PermissionDeniedError

# Envoy adds it where it shows the beginning of a body only (allow_partial_message).
_PARTIAL = "x-envoy-auth-partial-body"

# A flag, and the length in four bytes: "gRPC over HTTP2", Length-Prefixed-Message.
_PREFIX = 5


def body_of(question: bytes) -> bytes:
    """Return the body that Envoy shows, empty if it shows none.

    Args:
        question: a serialized ``CheckRequest`` that has been read before.

    Raises:
        PermissionDeniedError: it is not the whole, or not as it was sent; the reason is ``organization_unverified``.

    """
    http = CheckRequest.FromString(question).attributes.request.http
    if http.body:
        raise unverified("the body is shown as text; set pack_as_bytes")
    if http.raw_body and _is_partial(http):
        raise unverified("only the beginning of the body is shown; raise max_request_bytes")
    return http.raw_body


def messages_in(body: bytes) -> Iterator[bytes]:
    """Yield every message of gRPC in a body.

    Raises:
        PermissionDeniedError: one is compressed or not wholly there; the reason is ``organization_unverified``.

    """
    start = 0
    while start < len(body):
        flag, length = body[start], int.from_bytes(body[start + 1 : start + _PREFIX])
        start += _PREFIX
        if flag != 0:
            raise unverified("the message is compressed")
        if start + length > len(body):
            raise unverified("the message is not wholly there")
        yield body[start : start + length]
        start += length


def unverified(message: str) -> PermissionDeniedError:
    """Return the refusal of a request that may name another organization, and nobody can tell."""
    return PermissionDeniedError(message, reason="organization_unverified")


def _is_partial(http: AttributeContext.HttpRequest) -> bool:
    values = [http.headers.get(_PARTIAL, "")]
    values += [
        header.value or header.raw_value.decode("latin-1")
        for header in http.header_map.headers
        if header.key.lower() == _PARTIAL
    ]
    return any(value not in ("", "false") for value in values)
