"""Our answer to Envoy: a verdict, written as a ``CheckResponse``.

Pure. Envoy lets a request pass when ``status.code`` is 0, whatever else the
response says, so responses are built only here: :func:`allow` is
the only way to a 0, and :func:`deny` takes a :class:`~authz.call.refusal.Refusal`,
which has none.
"""

import functools
import math
import re
from collections.abc import Sequence
from typing import Any

from authz.call.call import Entry
from authz.call.known import Known
from authz.call.metadata import TrustedMetadata
from authz.call.principal import Principal
from authz.call.principal_bytes import field, varint
from authz.call.refusal import Refusal
from authz.envoy.v3.external_auth_pb2 import (
    CheckResponse,
    DeniedHttpResponse,
    HeaderValue,
    HeaderValueOption,
    HttpStatus,
    OkHttpResponse,
    Status,
)
from authz.errors import InternalError
from authz.http.forms import Form, answer
from authz.http.headers import text_of
from authz.organizations.quota import Quota

# Envoy 1.36 and older know no append_action and overwrite when `append` is absent;
# proxyless gRPC (gRFC A92) reads append_action only, and appends when it is absent.
_OVERWRITE = HeaderValueOption.HEADER_APPEND_ACTION_OVERWRITE_IF_EXISTS_OR_ADD

# gRFC A92: gRPC without a proxy, as a client of ext_authz, drops any other header, and `host`.
_MAX_HEADER_BYTES = 16384
_KEY = re.compile(r"(?!host$)[a-z0-9_.-]+")
# Without CR and LF, which Envoy writes to the wire unless it validates mutations.
_VALUE = re.compile(r"[ -~]+")

# Tags: the number of a field, and how it is written. First those of CheckResponse.
_STATUS_OK, _OK_RESPONSE = b"\x0a\x00", b"\x1a"
_HEADERS_TAG = b"\x12"
_HEADER_TAG, _OVERWRITTEN = b"\x0a", b"\x18" + varint(_OVERWRITE)
_KEY_TAG, _VALUE_TAG, _RAW_VALUE_TAG = b"\x0a", b"\x12", b"\x1a"

# In seconds; Envoy also knows weeks, months and years, and does not define their lengths.
_UNITS = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86_400}


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
        remove_authorization: whether Envoy removes the token; the upstream then depends on Envoy's word alone.
        quota: the plan of its organization, for Envoy's later filters.

    Raises:
        InternalError: a value of the principal fits into no header, so the upstream would not receive it.

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


# There are few sets of names; copying a response is cheaper than building one, and every token is new once.
@functools.lru_cache(64)
def _frame(trusted: TrustedMetadata, names: tuple[str, ...], remove_authorization: bool) -> CheckResponse:  # noqa: FBT001 - of a cache
    removed = [name for name in removals(trusted, remove_authorization=remove_authorization) if name not in names]
    headers = [HeaderValueOption(header=HeaderValue(key=name), append_action=_OVERWRITE) for name in names]
    return CheckResponse(status=Status(code=0), ok_response=OkHttpResponse(headers=headers, headers_to_remove=removed))


def removals(trusted: TrustedMetadata, *, remove_authorization: bool) -> list[str]:
    """Return the headers that a request may not take to its upstream, unless they are set anew."""
    return [*trusted.removed, *trusted.prefixed, *(["authorization"] if remove_authorization else [])]


def allowed(
    principal: Principal, trusted: TrustedMetadata, *, remove_authorization: bool = False, quota: Quota | None = None
) -> bytes:
    """Return :func:`allow`, serialized."""
    known = _known.of(principal)
    if known is not None and known[1] is trusted and known[2] is remove_authorization and known[3] is quota:
        return known[0]
    answer = _written(principal, trusted, remove_authorization=remove_authorization, quota=quota)
    _known.remember(principal, (answer, trusted, remove_authorization, quota))
    return answer


# Most callers that are allowed call again. Not many, because of the pauses in which garbage is collected.
_known = Known[tuple[bytes, TrustedMetadata, bool, Quota | None]](1024)


def _written(
    principal: Principal, trusted: TrustedMetadata, *, remove_authorization: bool, quota: Quota | None
) -> bytes:
    """Return :func:`allow`, serialized: protobuf writes one for each application, here one header for each token."""
    entries = trusted.entries(principal)
    if not entries:
        return allow(principal, trusted, remove_authorization=remove_authorization, quota=quota).SerializeToString()
    application = principal.org_id, principal.client_id, principal.scopes, principal.tenant
    head, tail, facts = _application(trusted, application, remove_authorization, quota)
    ok_response = b"".join((head, _token_header(entries[-1]), tail))
    return b"".join((_STATUS_OK, field(_OK_RESPONSE, ok_response), facts))


@functools.lru_cache(1024)
def _application(
    trusted: TrustedMetadata,
    application: tuple[str, str, frozenset[str], str],
    remove_authorization: bool,  # noqa: FBT001 - of a cache
    quota: Quota | None,
) -> tuple[bytes, bytes, bytes]:
    """Return what an ``ok_response`` has before the header of the token and after it, and what follows it."""
    org_id, client_id, scopes, tenant = application
    like = Principal(org_id=org_id, client_id=client_id, subject="", scopes=scopes, tenant=tenant)
    response = allow(like, trusted, remove_authorization=remove_authorization, quota=quota)
    headers, removed = response.ok_response.headers, response.ok_response.headers_to_remove
    # The last header is that of the principal, which each token has for itself.
    before = OkHttpResponse(headers=headers[:-1]).SerializeToString()
    after = OkHttpResponse(headers_to_remove=removed).SerializeToString()
    response.ClearField("status")
    response.ClearField("ok_response")
    return before, after, response.SerializeToString()


def _token_header(entry: Entry) -> bytes:
    """Return the ``HeaderValueOption`` of the principal as a field of ``OkHttpResponse``."""
    value, data = text_of(entry.value).encode(), entry.value
    if not isinstance(data, bytes) or len(value) > _MAX_HEADER_BYTES:
        raise InternalError
    header = field(_KEY_TAG, entry.key.encode()) + field(_VALUE_TAG, value) + field(_RAW_VALUE_TAG, data)
    return field(_HEADERS_TAG, field(_HEADER_TAG, header) + _OVERWRITTEN)


def deny(refusal: Refusal, form: Form) -> CheckResponse:
    """Return the response that stops a request.

    A 503 is a ``denied_response``, too: any other way to say "cannot decide" is let through by ``failure_mode_allow``.
    A header that some client would not accept is left out; the denial stands without it. A denial may have the HTTP
    status 200, as some protocols require: Envoy looks at ``status.code`` alone.

    Args:
        refusal: what the caller gets.
        form: the protocol for which it is written.

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


# There are few reasons and forms, and a caller that is refused may ask often.
@functools.lru_cache(512)
def denied(refusal: Refusal, form: Form) -> bytes:
    """Return :func:`deny`, serialized."""
    return deny(refusal, form).SerializeToString()


def _tell(response: CheckResponse, **facts: str) -> None:
    """Add what Envoy's access log and later filters may know of a verdict."""
    for name, fact in facts.items():
        if fact:
            response.dynamic_metadata.fields[name].string_value = fact


def is_fit(header: HeaderValue) -> bool:
    """Return whether every client of ext_authz accepts ``header``: Envoy, and gRPC without a proxy (gRFC A92)."""
    return (
        len(header.key) <= _MAX_HEADER_BYTES
        and _KEY.fullmatch(header.key) is not None
        and len(header.value) <= _MAX_HEADER_BYTES
        and _VALUE.fullmatch(header.value) is not None
        and len(header.raw_value) <= _MAX_HEADER_BYTES
        # In a binary header one of the two reads `value`, and the other `raw_value`.
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
    # Envoy writes `value` to the wire as it is; A92 reads `raw_value`.
    header.value = text_of(value)
    if isinstance(value, bytes):
        header.raw_value = value


def facts_of(quota: Quota) -> dict[str, Any]:
    """Return ``quota`` for Envoy's dynamic metadata, ready for a ``Struct``.

    ``limit`` has the form of ``RateLimit.Override``, which Envoy's filter ratelimit reads.
    """
    facts: dict[str, Any] = {"quota": quota.name}
    rate = quota.requests_per_second
    if rate is not None:
        facts |= {"requests_per_second": rate, "burst": quota.burst, "limit": _limit(rate)}
    if quota.concurrent_streams is not None:
        facts["concurrent_streams"] = quota.concurrent_streams
    return facts


def _limit(rate: float) -> dict[str, Any]:
    """Return the rate as a whole number per the shortest unit that gives one, or else rounded down per day."""
    counts = {unit: round(rate * seconds, 6) for unit, seconds in _UNITS.items()}
    unit = next((unit for unit, count in counts.items() if count.is_integer()), "DAY")
    return {"requests_per_unit": math.floor(counts[unit]), "unit": unit}
