"""The verdict of an authorization server, in words."""

import base64
import binascii
from collections.abc import Iterable
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from authz.call.metadata import TrustedMetadata
from authz.call.reasons import meaning
from authz.envoy.v3.external_auth_pb2 import CheckResponse, DeniedHttpResponse, HeaderValueOption

ALLOWED, DENIED, UNDECIDED = "allowed", "denied", "undecided"

Report = dict[str, Any]

_UNDECIDED_CODES = {Code.UNAVAILABLE, Code.INTERNAL}
# Envoy's status, if the answer has none.
_FORBIDDEN = 403
# Headers of a refusal that inform the caller, in addition to the message.
_TELLING = {"www-authenticate", "retry-after"}


def report_of(response: CheckResponse) -> Report:
    """Return what Envoy would do with the answer, as plain data."""
    if response.status.code == Code.OK:
        return _allowed(response)
    return _refused(response)


def unanswered(code: str, details: str) -> Report:
    """Return the report of a question that failed with an RPC error."""
    means = {
        "UNAVAILABLE": "The server cannot be reached. Check the address, and whether it needs TLS.",
        "DEADLINE_EXCEEDED": "The server did not answer in time. Look into its log, or give it longer with --timeout.",
        "UNIMPLEMENTED": "The server there is not an authorization server. Check the address.",
    }
    explanation = means.get(code, "The server failed. Look into its log.")
    return {"verdict": UNDECIDED, "reason": "", "grpc_code": code, "details": details, "explanation": explanation}


def without(secret: str, value: Any) -> Any:
    """Return ``value`` with a mark in place of ``secret``, which the server may repeat in its answer."""
    if isinstance(value, dict):
        return {key: without(secret, part) for key, part in value.items()}
    if isinstance(value, list):
        return [without(secret, part) for part in value]
    return value.replace(secret, "[token]") if secret and isinstance(value, str) else value


def lines_of(report: Report) -> list[str]:
    """Return ``report`` for people."""
    head = f"{report['verdict']}: {report['reason']}" if report["reason"] else report["verdict"]
    lines = [head]
    for name, value in report.items():
        if name in {"verdict", "reason", "explanation"} or value in ("", [], {}):
            continue
        if isinstance(value, dict):
            lines += [f"  {_title(name)}:", *(f"    {key}: {part}" for key, part in value.items())]
        else:
            lines.append(f"  {_title(name)}: {' '.join(value) if isinstance(value, list) else value}")
    lines.append(f"  {report['explanation']}")
    return lines


def _allowed(response: CheckResponse) -> Report:
    names, changes = TrustedMetadata(), response.ok_response
    headers = _values(changes.headers)
    organization = headers.get(names.org_id, "")
    explanation = "The upstream sees the request with these headers."
    if not organization:
        explanation = "The upstream sees a request without an organization: no caller is required here."
    return {
        "verdict": ALLOWED,
        "reason": "",
        "organization": organization,
        "client": headers.get(names.client_id, ""),
        "scopes": headers.get(names.scopes, "").split(),
        "headers_set": headers,
        "headers_removed": list(changes.headers_to_remove),
        "explanation": explanation,
    }


def _refused(response: CheckResponse) -> Report:
    is_undecided = response.status.code in _UNDECIDED_CODES or response.HasField("error_response")
    http = response.error_response if response.HasField("error_response") else response.denied_response
    reason = _reason(http) or response.dynamic_metadata.fields["reason"].string_value
    code = response.status.code
    return {
        "verdict": UNDECIDED if is_undecided else DENIED,
        "reason": reason,
        "grpc_code": Code.Name(code) if code in Code.values() else str(code),
        "http_status": int(http.status.code) or _FORBIDDEN,
        "message": response.status.message,
        "headers_sent": {name: value for name, value in _values(http.headers).items() if name in _TELLING},
        "explanation": meaning(reason),
    }


def _reason(http: DeniedHttpResponse) -> str:
    """Return the reason from ``grpc-status-details-bin``, in lower case as in our errors."""
    text = _values(http.headers).get("grpc-status-details-bin", "")
    info = ErrorInfo()
    try:
        status = Status.FromString(base64.b64decode(text + "=" * (-len(text) % 4)))
        found = any(packed.Unpack(info) for packed in status.details)
    except (binascii.Error, DecodeError):
        return ""
    return info.reason.lower() if found else ""


def _values(headers: Iterable[HeaderValueOption]) -> dict[str, str]:
    return {option.header.key: option.header.value for option in headers}


def _title(name: str) -> str:
    if name == "header":
        return "header of the token (NOT verified)"
    return name.replace("_", " ").replace("grpc", "gRPC").replace("http", "HTTP")
