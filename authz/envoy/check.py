"""Envoy's question and our answer: ``CheckRequest`` to ``Call``, verdict to ``CheckResponse``.

Pure. Envoy lets a request pass when ``status.code`` is 0, whatever else the
response says, so responses are built here and nowhere else: :func:`allow` is
the only way to a 0, and :func:`deny` takes a :class:`~authz.refusal.Refusal`,
which has none.
"""

import base64
import functools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from urllib.parse import unquote_to_bytes

from google.protobuf.struct_pb2 import Struct, Value

from authz.call import Call, Entry, Principal
from authz.envoy.v3.external_auth_pb2 import (
    AttributeContext,
    CheckRequest,
    CheckResponse,
    DeniedHttpResponse,
    HeaderValue,
    HeaderValueOption,
    HttpStatus,
    OkHttpResponse,
    Status,
)
from authz.errors import InternalError, PermissionDeniedError
from authz.metadata import TrustedMetadata
from authz.peer import Peer
from authz.refusal import Refusal

# Envoy 1.36 and older know no append_action and overwrite when `append` is absent;
# proxyless gRPC (gRFC A92) reads append_action only, and appends when it is absent.
_OVERWRITE = HeaderValueOption.HEADER_APPEND_ACTION_OVERWRITE_IF_EXISTS_OR_ADD

_GRPC_PATH = re.compile(r"/[^/?#\s]+/[^/?#\s]+")
_HTTP_PATH = re.compile(r"/[^?#\s]*")

# What gRFC A92 lets through: a client of ext_authz without a proxy drops any other header. `host` it drops as well.
_MAX_HEADER_BYTES = 16384
_KEY = re.compile(r"(?!host$)[a-z0-9_.-]+")
# No CR and no LF either, which Envoy would write to the wire unless it validates mutations.
_VALUE = re.compile(r"[ -~]+")

_NOBODY, _NOBODY_BY_TLS = Peer(), Peer(principals=("",))

UNREADABLE = Call(method="", metadata=())
"""What a request is taken for that cannot even be parsed."""


def parse(body: bytes) -> CheckRequest:
    """Return the message in ``body``.

    Raises:
        PermissionDeniedError: it is none. Not an RPC error: those are let through by ``failure_mode_allow``.

    """
    try:
        return CheckRequest.FromString(body)
    except Exception as error:
        raise malformed() from error


def malformed() -> PermissionDeniedError:
    """Return the refusal of a request that names nothing that could be authorized."""
    return PermissionDeniedError("not a request that can be authorized", reason="request_malformed")


def call_from(request: CheckRequest) -> Call:
    """Return the call that Envoy asks about; its ``method`` is the path without the query.

    Reads ``header_map`` (``encode_raw_headers``, and gRFC A92) or else ``headers``, which never both are filled.
    Bytes that are not ASCII become Latin-1 characters, which no token has. The peer is the caller as Envoy
    has seen it in its handshake (``include_peer_certificate``, ``include_tls_session``); headers about certificates are
    only headers.
    """
    http = request.attributes.request.http
    if http.header_map.headers:
        metadata = [
            (header.key.lower(), header.raw_value.decode("latin-1") or header.value)
            for header in http.header_map.headers
        ]
    else:
        metadata = [(key.lower(), value) for key, value in http.headers.items()]
    return Call(method=http.path.partition("?")[0], metadata=metadata, peer=_peer_of(request.attributes))


def _peer_of(attributes: AttributeContext) -> Peer:
    source = attributes.source
    peer = _peer(source.certificate, source.principal) if source.certificate or source.principal else _NOBODY
    return _NOBODY_BY_TLS if peer is _NOBODY and attributes.HasField("tls_session") else peer


# Few clients, many calls.
@functools.lru_cache(1024)
def _peer(certificate: str, principal: str) -> Peer:
    # What Envoy calls the principal is the first of the names that a policy compares.
    principals = (principal,) if principal else ()
    try:
        return replace(Peer.known_by_certificate(unquote_to_bytes(certificate)), principals=principals)
    except Exception:  # noqa: BLE001 - what cannot be read proves nothing, and an extension fails in ways of its own
        return Peer(principals=principals)


def is_grpc(metadata: Iterable[tuple[str, str | bytes]]) -> bool:
    """Say whether Envoy takes the request for gRPC, and so turns a denial into a gRPC status."""
    kinds = [str(value) for key, value in metadata if key == "content-type"]
    return len(kinds) == 1 and (kinds[0] == "application/grpc" or kinds[0].startswith("application/grpc+"))


def check_path(call: Call, *, grpc: bool) -> None:
    """Check that the path is one that every server reads alike.

    Raises:
        PermissionDeniedError: it is not ``/package.Service/Method``, or for plain HTTP no absolute path.

    """
    if not (_GRPC_PATH if grpc else _HTTP_PATH).fullmatch(call.method):
        raise malformed()


def allow(principal: Principal, trusted: TrustedMetadata, *, remove_authorization: bool = False) -> CheckResponse:
    """Return the response that lets a request pass and tells its upstream who makes it.

    Every trusted name is either set or removed, so a caller's own copy never gets through.

    Args:
        principal: who makes it.
        trusted: the names.
        remove_authorization: whether the upstream, which then has nobody's word but Envoy's, does without the token.

    Raises:
        InternalError: something of the principal fits into no header, so that its upstream would not learn it.

    """
    entries = trusted.entries(principal)
    headers = _headers(entries)
    if len(headers) != len(entries):
        raise InternalError
    given = {entry.key for entry in entries}
    removed = [name for name in trusted.removed if name not in given]
    if remove_authorization:
        removed.append("authorization")
    return CheckResponse(
        status=Status(code=0),
        ok_response=OkHttpResponse(
            headers=headers,
            headers_to_remove=removed,
        ),
        dynamic_metadata=_told(organization=principal.org_id, client=principal.client_id),
    )


# One for every token that a verifier remembers: what is allowed is mostly allowed again.
@functools.lru_cache(10_000)
def allowed(principal: Principal, trusted: TrustedMetadata, *, remove_authorization: bool = False) -> bytes:
    """Return :func:`allow`, serialized."""
    return allow(principal, trusted, remove_authorization=remove_authorization).SerializeToString()


def deny(refusal: Refusal, *, grpc: bool) -> CheckResponse:
    """Return the response that stops a request.

    Also a 503 is a ``denied_response``: what else says "cannot decide" is let through by ``failure_mode_allow``.
    A header that some client would not take is left out; the denial stands without it.

    Args:
        refusal: what the caller gets.
        grpc: whether that is a gRPC status, or else an HTTP status with a JSON body.

    """
    if grpc:
        body, headers = refusal.message, refusal.trailers
    else:
        body = json.dumps({"error": refusal.message})
        headers = (*refusal.headers, Entry("content-type", "application/json"))
    return CheckResponse(
        status=Status(code=refusal.code.value, message=refusal.message),
        denied_response=DeniedHttpResponse(
            status=HttpStatus(code=refusal.http_status),  # type: ignore[arg-type]
            headers=_headers(headers),
            body=body,
        ),
        dynamic_metadata=_told(reason=refusal.reason),
    )


# Few reasons, and whoever is refused may ask often.
@functools.lru_cache(256)
def denied(refusal: Refusal, *, grpc: bool) -> bytes:
    """Return :func:`deny`, serialized."""
    return deny(refusal, grpc=grpc).SerializeToString()


def _told(**facts: str) -> Struct | None:
    """Return what Envoy's access log may tell of a verdict."""
    known = {name: Value(string_value=fact) for name, fact in facts.items() if fact}
    return Struct(fields=known) if known else None


def is_fit(header: HeaderValue) -> bool:
    """Say whether every client of ext_authz takes ``header`` as it is: Envoy, and gRPC without a proxy (gRFC A92)."""
    return (
        len(header.key) <= _MAX_HEADER_BYTES
        and _KEY.fullmatch(header.key) is not None
        and len(header.value) <= _MAX_HEADER_BYTES
        and _VALUE.fullmatch(header.value) is not None
        and len(header.raw_value) <= _MAX_HEADER_BYTES
        # One of the two reads `value` there, and the other `raw_value`.
        and bool(header.raw_value) is header.key.endswith("-bin")
    )


def _headers(entries: Sequence[Entry]) -> list[HeaderValueOption]:
    # Every header of every response comes by here.
    headers = [_header(entry) for entry in entries]
    return [HeaderValueOption(header=header, append_action=_OVERWRITE) for header in headers if is_fit(header)]


def _header(entry: Entry) -> HeaderValue:
    if isinstance(entry.value, str):
        return HeaderValue(key=entry.key, value=entry.value)
    # Envoy writes `value` to the wire as it is, where gRPC wants base64 without padding; A92 takes `raw_value`.
    text = base64.b64encode(entry.value).decode("ascii").rstrip("=")
    return HeaderValue(key=entry.key, value=text, raw_value=entry.value)
