"""What Envoy shows of a request's body, and the gRPC message in it.

Pure. Envoy shows a body only if it is configured to (``with_request_body``), and must show bytes (``pack_as_bytes``):
in a text it replaces what is not UTF-8, so the message that was checked would differ from that of the upstream.
"""

from authz.envoy.v3.external_auth_pb2 import AttributeContext
from authz.policy.protos.isolation import unverified

MAX_BODY_BYTES = 262_144
"""How long a body may be to be checked."""

# Envoy adds it if it shows only the beginning of a body (allow_partial_message).
_PARTIAL = "x-envoy-auth-partial-body"
_KINDS = (["application/grpc"], ["application/grpc+proto"])

# A flag, and the length in four bytes: "gRPC over HTTP2", Length-Prefixed-Message.
_PREFIX = 5


def body_of(http: AttributeContext.HttpRequest) -> bytes:
    """Return the body that Envoy shows, empty if it shows none.

    Raises:
        PermissionDeniedError: it is not complete, or not as it was sent, or an upstream may not read it as protobuf;
            the reason is ``organization_unverified``.

    """
    headers = _headers(http, "content-type", "content-encoding", _PARTIAL)
    if headers["content-type"] not in _KINDS:
        # With "+json", or what an upstream takes for that, the body is no protobuf.
        raise unverified("the content-type is neither application/grpc nor application/grpc+proto")
    if any(value.lower() not in ("", "identity") for value in headers["content-encoding"]):
        # A later filter, or the upstream, would decompress it.
        raise unverified("the body has a content-encoding")
    if http.body:
        raise unverified("the body is shown as text; set pack_as_bytes")
    if http.raw_body and any(value not in ("", "false") for value in headers[_PARTIAL]):
        raise unverified("only the beginning of the body is shown; raise max_request_bytes")
    return http.raw_body


def message_in(body: bytes) -> bytes:
    """Return the one gRPC message in a body.

    Raises:
        PermissionDeniedError: there is another message, or it is compressed, too long or not complete; the reason is
            ``organization_unverified``.

    """
    if len(body) > MAX_BODY_BYTES:
        raise unverified(f"the body is longer than {MAX_BODY_BYTES} bytes")
    if body[0] != 0:
        raise unverified("the message is compressed")
    end = _PREFIX + int.from_bytes(body[1:_PREFIX])
    if end > len(body):
        raise unverified("the message is incomplete")
    if end < len(body):
        # Servers differ: most read the first message, some refuse both.
        raise unverified("more than one message is sent to a method that takes one")
    return body[_PREFIX:end]


def _headers(http: AttributeContext.HttpRequest, *names: str) -> dict[str, list[str]]:
    """Return the values of some headers, in either form in which Envoy shows them."""
    found: dict[str, list[str]] = {name: [] for name in names}
    for name in names:
        if name in http.headers:
            found[name].append(http.headers[name])
    for header in http.header_map.headers:
        values = found.get(header.key.lower())
        if values is not None:
            values.append(header.raw_value.decode("latin-1") or header.value)
    return found
