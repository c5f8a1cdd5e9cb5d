"""What Envoy shows of a request's body.

Pure. Envoy shows a body only if it is configured to (``with_request_body``), and must show bytes (``pack_as_bytes``):
in a text it replaces what is not UTF-8, so the message that was checked would differ from that of the upstream.
"""

from authz.envoy.v3.external_auth_pb2 import AttributeContext
from authz.http.messages import check_kind
from authz.policy.protos.isolation import unverified

# Envoy adds it if it shows only the beginning of a body (allow_partial_message).
_PARTIAL = "x-envoy-auth-partial-body"


def body_of(http: AttributeContext.HttpRequest) -> bytes:
    """Return the body that Envoy shows, empty if it shows none.

    Raises:
        PermissionDeniedError: it is not complete, or not as it was sent, or an upstream may not read it as protobuf;
            the reason is ``organization_unverified``.

    """
    headers = _headers(http, "content-type", "content-encoding", _PARTIAL)
    check_kind(headers["content-type"], headers["content-encoding"])
    if http.body:
        raise unverified("the body is shown as text; set pack_as_bytes")
    if http.raw_body and any(value not in ("", "false") for value in headers[_PARTIAL]):
        raise unverified("only the beginning of the body is shown; raise max_request_bytes")
    return http.raw_body


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
