"""How refusals are written for each protocol; what published clients make of them is in :mod:`tests.web`."""

import base64
import json
import struct
from typing import Any

import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from hypothesis import given
from hypothesis import strategies as st

from authz.call.refusal import Challenge, refusal_of
from authz.envoy.check.answer import deny
from authz.errors import AuthzError, InternalError, ResourceExhaustedError, TokenExpiredError
from authz.http.forms import Form, answer, form_of

STREAMS = {"application/connect+proto": Form.CONNECT_PROTO, "application/connect+json": Form.CONNECT_JSON}


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("application/grpc-web", Form.GRPC_WEB),
        ("application/grpc-web+proto", Form.GRPC_WEB),
        ("application/grpc-web+json", Form.GRPC_WEB),
        ("application/grpc-web-text", Form.GRPC_WEB),
        ("application/grpc-web-text+proto", Form.GRPC_WEB),
        ("Application/GRPC-Web; charset=utf-8", Form.GRPC_WEB),
        ("application/grpc-webx", Form.HTTP),
        ("application/grpc-web, application/grpc-web", Form.HTTP),
        *STREAMS.items(),
        ("application/connect+JSON ;x", Form.CONNECT_JSON),
        ("application/connect+thrift", Form.HTTP),
        ("application/connect", Form.HTTP),
        ("application/proto", Form.HTTP),
        ("application/json", Form.HTTP),
    ],
)
def test_content_type_decides_the_form(kind: str, form: Form) -> None:
    assert form_of([kind]) is form
    assert form_of([kind, kind]) is Form.HTTP


def error_of(body: Any) -> dict[str, Any]:
    """Return an error of Connect with its details parsed, in the order in which they are sent."""
    types = {"google.rpc.ErrorInfo": ErrorInfo, "google.rpc.RetryInfo": RetryInfo}
    details = []
    for detail in body["details"]:
        assert "=" not in detail["value"]
        value = base64.b64decode(detail["value"] + "=" * (-len(detail["value"]) % 4), validate=True)
        details.append(types[detail["type"]].FromString(value))
    return {"code": body["code"], "message": body["message"], "details": details}


EXHAUSTED = {
    "code": "resource_exhausted",
    "message": "Quota exceeded",
    "details": [
        ErrorInfo(reason="QUOTA_EXCEEDED", domain="grpc-org-authz"),
        RetryInfo(retry_delay={"seconds": 3}),
    ],
}


def test_http_client_finds_the_error_of_connect_beside_ours() -> None:
    status, headers, body = answer(refusal_of(ResourceExhaustedError(retry_after=3), Challenge()), Form.HTTP)
    found = json.loads(body)

    assert (status, dict(headers)) == (429, {"retry-after": "3", "content-type": "application/json"})
    assert found["error"] == "Quota exceeded"
    assert error_of(found) == EXHAUSTED


@pytest.mark.parametrize(("kind", "form"), STREAMS.items())
def test_stream_of_connect_ends_with_the_error(kind: str, form: Form) -> None:
    refusal = refusal_of(ResourceExhaustedError(retry_after=3), Challenge())
    status, headers, body = answer(refusal, form)
    flags, length = struct.unpack(">BI", body[:5].encode())

    assert (status, dict(headers)) == (200, {"retry-after": "3", "content-type": kind})
    assert (flags, length) == (2, len(body) - 5)
    assert error_of(json.loads(body[5:])["error"]) == EXHAUSTED


@given(st.integers(0, 40_000), st.sampled_from(sorted(STREAMS)))
def test_envelope_can_be_sent_as_text_whatever_its_length(length: int, kind: str) -> None:
    class LongError(TokenExpiredError):
        reason = "r" * length

    [body] = [deny(refusal_of(LongError(), Challenge()), STREAMS[kind]).denied_response.body]
    flags, told = struct.unpack(">BI", body[:5].encode("ascii"))

    assert (flags, told) == (2, len(body.encode()) - 5)
    assert json.loads(body[5:])["error"]["code"] == "unauthenticated"


@pytest.mark.parametrize("error", [TokenExpiredError(), ResourceExhaustedError(), InternalError()])
def test_refusal_of_grpc_web_is_all_in_headers(error: AuthzError) -> None:
    """With a body, or with another status, clients do not find the code."""
    refusal = refusal_of(error, Challenge())
    status, headers, body = answer(refusal, Form.GRPC_WEB)
    found = dict(headers)

    assert (status, body) == (200, "")
    assert (
        found.items()
        >= {
            "grpc-status": str(error.code.value),
            "grpc-message": refusal.message,
            "grpc-status-details-bin": refusal.details,
            "content-type": "application/grpc-web+proto",
        }.items()
    )
    # Envoy's status_on_error apart no header would say it if this one were a 0.
    assert found["grpc-status"] != "0"
