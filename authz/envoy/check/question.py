"""Envoy's question: a ``CheckRequest``, read into the call that it is about. Pure."""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from google.protobuf.json_format import MessageToDict

from authz.call.call import MAX_ENTRIES, Call, malformed
from authz.call.peer import OVER_TLS, PLAIN, Peer
from authz.envoy.check.outline import SMALL, size_without_body
from authz.envoy.check.route import requirements_from
from authz.envoy.v3.external_auth_pb2 import AttributeContext, CheckRequest, HeaderValue
from authz.http.forms import Form, form_of

_GRPC_PATH = re.compile(r"/[^/?#\s]+/[^/?#\s]+")
_HTTP_PATH = re.compile(r"/[^?#\s]*")

_GRPC = ["application/grpc"]
# To look up a member of an enum takes as long as a call, in Python before 3.12.
_GRPC_FORM = Form.GRPC
_parse = CheckRequest.FromString
_JWT_AUTHN = "envoy.filters.http.jwt_authn"

MAX_CERTIFICATE = 32 * 1024
"""Characters of a client's certificate and its names, as Envoy tells them; a thousand of these are remembered."""

MAX_CLAIMS_BYTES = 16 * 1024
"""Of the claims that jwt_authn has verified; a token that is verified here has at most 6 KiB of them, as JSON."""


class Question(NamedTuple):
    """What Envoy asks about.

    Attributes:
        call: the call.
        form: how a denial is written, by the protocol that the caller speaks.
        http: the request as Envoy shows it.

    """

    call: Call
    form: Form
    http: AttributeContext.HttpRequest


def read(body: bytes, *, jwt_authn_payload: str = "") -> Question:
    """Return the call that Envoy asks about.

    The call's ``method`` is the path without the query. The peer is the caller as Envoy has seen it in its handshake
    (``include_peer_certificate``, ``include_tls_session``); headers about certificates prove nothing.

    Args:
        body: a serialized ``CheckRequest``.
        jwt_authn_payload: where Envoy's filter jwt_authn leaves the claims that it has verified, or an empty string
            to believe no such claims.

    Raises:
        PermissionDeniedError: ``body`` is no such message. An RPC error would be let through by ``failure_mode_allow``.

    """
    size = len(body) if len(body) <= SMALL else size_without_body(body)
    try:
        attributes = _parse(body).attributes
    except Exception as error:
        raise malformed() from error
    http = attributes.request.http
    # Envoy fills one of the two.
    is_raw = http.HasField("header_map")
    shown: Any = http.header_map.headers if is_raw else http.headers
    if len(shown) > MAX_ENTRIES:
        # The judge refuses them as well, but only after they would have been looked through.
        raise malformed()
    headers = _Raw(shown) if is_raw else _Joined(shown)
    credentials, kinds = headers.credentials_and_kinds()
    form = _GRPC_FORM if kinds == _GRPC else form_of(kinds)
    claims = _verified_claims(attributes, jwt_authn_payload) if jwt_authn_payload else None
    extensions = attributes.context_extensions
    path = http.path
    # Not by its constructor, which takes twice as long.
    call = _new(
        Call,
        (
            path.partition("?")[0] if "?" in path else path,
            headers,
            _peer_of(attributes),
            # If claims may stand for a token, the judge looks for a token among all headers, in any spelling.
            credentials if claims is None else None,
            requirements_from(extensions) if extensions else None,
            claims,
            size,
            http.method,
        ),
    )
    return _new(Question, (call, form, http))


_new = tuple.__new__


class _Joined:
    """Every header of a request as ``headers`` has them: in lower case, as HTTP/2 requires, and copies joined.

    Normalized only when a rule goes through all of them, which few rules do.
    """

    __slots__ = ("_headers",)

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def __len__(self) -> int:
        return len(self._headers)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((key.lower(), value) for key, value in self._headers.items())

    def names(self) -> Iterable[str]:
        """Return the names of all of them, as Envoy writes them."""
        return self._headers

    def credentials_and_kinds(self) -> tuple[list[str], list[str]]:
        """Return the values of ``authorization`` and of ``content-type``, without looking at much else."""
        headers = self._headers
        credentials = [headers["authorization"]] if "authorization" in headers else []
        return credentials, [headers["content-type"]] if "content-type" in headers else []


class _Raw:
    """Every header as ``header_map`` has them (``encode_raw_headers``, and gRFC A92): as bytes, and copies one by one.

    Bytes that are not ASCII become Latin-1 characters, which no token has.
    """

    __slots__ = ("_headers",)

    def __init__(self, headers: Sequence[HeaderValue]) -> None:
        self._headers = headers

    def __len__(self) -> int:
        return len(self._headers)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((header.key.lower(), _value(header)) for header in self._headers)

    def names(self) -> Iterable[str]:
        """Return the names of all of them, copies included, as Envoy writes them."""
        return (header.key for header in self._headers)

    def credentials_and_kinds(self) -> tuple[list[str], list[str]]:
        """Return the values of ``authorization`` and of ``content-type``."""
        credentials: list[str] = []
        kinds: list[str] = []
        for header in self._headers:
            key = header.key.lower()
            if key == "authorization":
                credentials.append(_value(header))
            elif key == "content-type":
                kinds.append(_value(header))
        return credentials, kinds


def _value(header: HeaderValue) -> str:
    return header.raw_value.decode("latin-1") or header.value


def _verified_claims(attributes: AttributeContext, key: str) -> Mapping[str, Any] | None:
    stored = attributes.metadata_context.filter_metadata.get(_JWT_AUTHN)
    value = stored.fields.get(key) if stored is not None else None
    if value is None or not value.HasField("struct_value"):
        return None
    if value.ByteSize() > MAX_CLAIMS_BYTES:
        return {}
    try:
        return MessageToDict(value.struct_value)
    except Exception:  # noqa: BLE001 - a number that JSON cannot express: there are claims, and they cannot be read
        return {}


def _peer_of(attributes: AttributeContext) -> Peer:
    source = attributes.source
    certificate, principal = source.certificate, source.principal
    if certificate or principal:
        if len(certificate) + len(principal) > MAX_CERTIFICATE:
            raise malformed()
        return _peer(certificate, principal)
    return OVER_TLS if attributes.HasField("tls_session") else PLAIN


# Few clients, many calls.
@functools.lru_cache(1024)
def _peer(certificate: str, principal: str) -> Peer:
    # Envoy's principal is the first of the names in the certificate, and the one that a policy compares.
    principals = (principal,) if principal else ()
    try:
        return replace(Peer.known_by_certificate(unquote_to_bytes(certificate)), principals=principals)
    except Exception:  # noqa: BLE001 - what cannot be read proves nothing, and an extension module may raise any error
        return Peer(principals=principals)


def check_path(path: str, *, grpc: bool) -> None:
    """Check that the path is one that every server reads alike.

    Raises:
        PermissionDeniedError: it is not ``/package.Service/Method``, or for plain HTTP no absolute path.

    """
    known = _known_paths[grpc]
    if path in known:
        return
    if not (_GRPC_PATH if grpc else _HTTP_PATH).fullmatch(path):
        raise malformed()
    # The caller chooses it.
    if len(path) <= _LONGEST_KNOWN:
        if len(known) >= _MOST_KNOWN:
            known.clear()
        known.add(path)


# Of plain HTTP, and of gRPC.
_known_paths: tuple[set[str], set[str]] = (set(), set())
_MOST_KNOWN, _LONGEST_KNOWN = 1024, 128
