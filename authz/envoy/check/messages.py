"""Envoy's question and our answer: ``CheckRequest`` to ``Call``, verdict to ``CheckResponse``.

Pure. Envoy lets a request pass when ``status.code`` is 0, whatever else the
response says, so responses are built here and nowhere else: :func:`allow` is
the only way to a 0, and :func:`deny` takes a :class:`~authz.call.refusal.Refusal`,
which has none.
"""

import binascii
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from google.protobuf.json_format import MessageToDict

from authz.call.call import MAX_ENTRIES, Call, Entry, malformed
from authz.call.metadata import TrustedMetadata
from authz.call.peer import Peer
from authz.call.principal import Principal
from authz.call.refusal import Refusal
from authz.envoy.check.forms import Form, answer, form_of
from authz.envoy.check.limits import facts_of
from authz.envoy.check.outline import size_without_body
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
from authz.errors import InternalError
from authz.judge.requirements import requirements_from
from authz.organizations.quota import Quota

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

_JWT_AUTHN = "envoy.filters.http.jwt_authn"
_NOBODY, _NOBODY_BY_TLS = Peer(), Peer(principals=("",))

MAX_CERTIFICATE = 32 * 1024
"""Characters of what is told of a client's certificate; a thousand of them are remembered."""

MAX_CLAIMS_BYTES = 16 * 1024
"""Of the claims that jwt_authn has left: a token that is looked at here has 6 KiB of them at the most, as JSON."""

UNREADABLE = Call(method="", metadata=())
"""What a request is taken for that cannot even be parsed."""


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
    (``include_peer_certificate``, ``include_tls_session``); headers about certificates are only headers.

    Args:
        body: a serialized ``CheckRequest``.
        jwt_authn_payload: where Envoy's filter jwt_authn leaves the claims that it has verified, or an empty string
            to believe nothing of the kind.

    Raises:
        PermissionDeniedError: it is none. Not an RPC error: those are let through by ``failure_mode_allow``.

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
        # The judge says so as well, but then they would have been looked through.
        raise malformed()
    credentials, kinds = headers.credentials_and_kinds()
    claims = _verified_claims(attributes, jwt_authn_payload) if jwt_authn_payload else None
    call = Call(
        method=http.path.partition("?")[0],
        metadata=headers,
        peer=_peer_of(attributes),
        # Where claims count in its absence, whatever could be a token is looked for in any spelling.
        credentials=credentials if claims is None else None,
        requirements=requirements_from(extensions) if extensions else None,
        verified_claims=claims,
        size=size,
    )
    return Question(call, form_of(kinds), http)


class _Headers:
    """Every header of a request, brought into one form when somebody asks for all of them, which few rules do.

    From ``header_map`` (``encode_raw_headers``, and gRFC A92) or else ``headers``, which never both are filled.
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

    def credentials_and_kinds(self) -> tuple[list[str], list[str]]:
        """Return the values of ``authorization`` and of ``content-type``, without looking at much else."""
        if self._raw is None:
            # Keys are in lower case there, as HTTP/2 wants them, and copies are joined.
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
    except Exception:  # noqa: BLE001 - a number that JSON does not have: there are claims, and none can be read
        return {}


def _peer_of(attributes: AttributeContext) -> Peer:
    source = attributes.source
    certificate, principal = source.certificate, source.principal
    if len(certificate) + len(principal) > MAX_CERTIFICATE:
        raise malformed()
    if certificate or principal:
        return _peer(certificate, principal)
    return _NOBODY_BY_TLS if attributes.HasField("tls_session") else _NOBODY


# Few clients, many calls.
@functools.lru_cache(1024)
def _peer(certificate: str, principal: str) -> Peer:
    # What Envoy calls the principal is the first of the names that a policy compares.
    principals = (principal,) if principal else ()
    try:
        return replace(Peer.known_by_certificate(unquote_to_bytes(certificate)), principals=principals)
    except Exception:  # noqa: BLE001 - what cannot be read proves nothing, and an extension fails in ways of its own
        return Peer(principals=principals)


def check_path(path: str, *, grpc: bool) -> None:
    """Check that the path is one that every server reads alike.

    Raises:
        PermissionDeniedError: it is not ``/package.Service/Method``, or for plain HTTP no absolute path.

    """
    if not (_GRPC_PATH if grpc else _HTTP_PATH).fullmatch(path):
        raise malformed()


def allow(
    principal: Principal,
    trusted: TrustedMetadata,
    *,
    remove_authorization: bool = False,
    quota: Quota | None = None,
) -> CheckResponse:
    """Return the response that lets a request pass and tells its upstream who makes it.

    Every trusted name is either set or removed, so a caller's own copy never gets through.

    Args:
        principal: who makes it.
        trusted: the names.
        remove_authorization: whether the upstream, which then has nobody's word but Envoy's, does without the token.
        quota: the plan of its organization, of which Envoy is told.

    Raises:
        InternalError: something of the principal fits into no header, so that its upstream would not learn it.

    """
    entries = trusted.entries(principal)
    response = CheckResponse()
    response.CopyFrom(_frame(trusted, tuple([entry.key for entry in entries]), remove_authorization))
    for option, entry in zip(response.ok_response.headers, entries, strict=True):
        _fill(option.header, entry.value)
        if not is_fit(option.header):
            raise InternalError
    _tell(response, organization=principal.org_id, client=principal.client_id)
    if quota is not None:
        response.dynamic_metadata.update(facts_of(quota))
    return response


# Few sets of names; to copy a response is cheaper than to build one, and most tokens are new at some time.
@functools.lru_cache(64)
def _frame(trusted: TrustedMetadata, names: tuple[str, ...], remove_authorization: bool) -> CheckResponse:  # noqa: FBT001 - of a cache
    removed = [*(name for name in trusted.removed if name not in names), *trusted.prefixed]
    if remove_authorization:
        removed.append("authorization")
    headers = [HeaderValueOption(header=HeaderValue(key=name), append_action=_OVERWRITE) for name in names]
    return CheckResponse(status=Status(code=0), ok_response=OkHttpResponse(headers=headers, headers_to_remove=removed))


# One for every token that a verifier remembers: what is allowed is mostly allowed again.
@functools.lru_cache(10_000)
def allowed(
    principal: Principal, trusted: TrustedMetadata, *, remove_authorization: bool = False, quota: Quota | None = None
) -> bytes:
    """Return :func:`allow`, serialized."""
    return allow(principal, trusted, remove_authorization=remove_authorization, quota=quota).SerializeToString()


def deny(refusal: Refusal, form: Form) -> CheckResponse:
    """Return the response that stops a request.

    Also a 503 is a ``denied_response``: what else says "cannot decide" is let through by ``failure_mode_allow``.
    A header that some client would not take is left out; the denial stands without it. So does a denial whose HTTP
    status is 200, as some protocols want it: Envoy looks at ``status.code`` alone.

    Args:
        refusal: what the caller gets.
        form: how that is written.

    """
    status, headers, body = answer(refusal, form)
    response = CheckResponse(
        status=Status(code=refusal.code.value, message=refusal.message),
        denied_response=DeniedHttpResponse(
            status=HttpStatus(code=status),  # type: ignore[arg-type]
            headers=_headers(headers),
            body=body,
        ),
    )
    _tell(response, reason=refusal.reason)
    return response


# Few reasons and forms, and a caller that is refused may ask often.
@functools.lru_cache(512)
def denied(refusal: Refusal, form: Form) -> bytes:
    """Return :func:`deny`, serialized."""
    return deny(refusal, form).SerializeToString()


def _tell(response: CheckResponse, **facts: str) -> None:
    """Add what Envoy's access log and its later filters may know of a verdict."""
    for name, fact in facts.items():
        if fact:
            response.dynamic_metadata.fields[name].string_value = fact


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
    headers = []
    for entry in entries:
        option = HeaderValueOption(header=HeaderValue(key=entry.key), append_action=_OVERWRITE)
        _fill(option.header, entry.value)
        if is_fit(option.header):
            headers.append(option)
    return headers


def _fill(header: HeaderValue, value: str | bytes) -> None:
    if isinstance(value, str):
        header.value = value
    else:
        # Envoy writes `value` to the wire as it is, where gRPC wants base64 without padding; A92 takes `raw_value`.
        header.value = binascii.b2a_base64(value, newline=False).decode("ascii").rstrip("=")
        header.raw_value = value
