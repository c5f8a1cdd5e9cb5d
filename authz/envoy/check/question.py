"""Envoy's question: a ``CheckRequest``, read into the call that it is about. Pure."""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from google.protobuf.json_format import MessageToDict

from authz.call.call import MAX_ENTRIES, Call, malformed
from authz.call.peer import OVER_TLS, PLAIN, Peer
from authz.envoy.check.outline import size_without_body
from authz.envoy.check.route import requirements_from
from authz.envoy.v3.external_auth_pb2 import AttributeContext, CheckRequest, HeaderValue
from authz.http.forms import Form, form_of

_GRPC_PATH = re.compile(r"/[^/?#\s]+/[^/?#\s]+")
_HTTP_PATH = re.compile(r"/[^?#\s]*")

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
    size = size_without_body(body)
    try:
        attributes = CheckRequest.FromString(body).attributes
    except Exception as error:
        raise malformed() from error
    http = attributes.request.http
    extensions = attributes.context_extensions
    headers = _Headers(http)
    if len(headers) > MAX_ENTRIES:
        # The judge refuses them as well, but only after they would have been looked through.
        raise malformed()
    credentials, kinds = headers.credentials_and_kinds()
    claims = _verified_claims(attributes, jwt_authn_payload) if jwt_authn_payload else None
    call = Call(
        method=http.path.partition("?")[0],
        metadata=headers,
        peer=_peer_of(attributes),
        # If claims may stand for a token, the judge looks for a token among all headers, in any spelling.
        credentials=credentials if claims is None else None,
        requirements=requirements_from(extensions) if extensions else None,
        verified_claims=claims,
        size=size,
        verb=http.method,
    )
    return Question(call, form_of(kinds), http)


class _Headers:
    """Every header of a request, normalized only when a rule goes through all of them, which few rules do.

    From ``header_map`` (``encode_raw_headers``, and gRFC A92) or else from ``headers``: Envoy fills one of the two.
    Bytes that are not ASCII become Latin-1 characters, which no token has.
    """

    __slots__ = ("_joined", "_raw")

    def __init__(self, http: AttributeContext.HttpRequest) -> None:
        self._raw = http.header_map.headers if http.HasField("header_map") else None
        self._joined = http.headers

    def __len__(self) -> int:
        return len(self._joined) if self._raw is None else len(self._raw)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        if self._raw is not None:
            return ((header.key.lower(), _value(header)) for header in self._raw)
        return ((key.lower(), value) for key, value in self._joined.items())

    def names(self) -> Iterable[str]:
        """Return the names of all of them, copies included, as Envoy writes them."""
        return self._joined if self._raw is None else (header.key for header in self._raw)

    def credentials_and_kinds(self) -> tuple[list[str], list[str]]:
        """Return the values of ``authorization`` and of ``content-type``, without looking at much else."""
        if self._raw is None:
            # Here Envoy has made names lower case, as HTTP/2 requires, and joined copies.
            credential, kind = self._joined.get("authorization"), self._joined.get("content-type")
            return [] if credential is None else [credential], [] if kind is None else [kind]
        credentials: list[str] = []
        kinds: list[str] = []
        for header in self._raw:
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
    if len(certificate) + len(principal) > MAX_CERTIFICATE:
        raise malformed()
    if certificate or principal:
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
    if not (_GRPC_PATH if grpc else _HTTP_PATH).fullmatch(path):
        raise malformed()
