"""Envoy's messages, as a test writes and reads them."""

import base64
import json
from collections.abc import Callable
from typing import Any

from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from authz.envoy.v3.external_auth_pb2 import AttributeContext, CheckRequest, CheckResponse, HeaderMap, HeaderValue

GRPC_PATH = "/authz.demo.v1.LedgerService/PostEntry"
GRPC = ("content-type", "application/grpc")

Form = Callable[..., CheckRequest]
"""One of the two ways in which Envoy writes a request."""


def in_headers(*headers: tuple[str, str], path: str = GRPC_PATH, verb: str = "POST") -> CheckRequest:
    """Return a request as Envoy writes it by default, with copies of a header joined."""
    joined: dict[str, str] = {}
    for key, value in headers:
        joined[key] = f"{joined[key]},{value}" if key in joined else value
    return _request(AttributeContext.HttpRequest(method=verb, path=path, headers=joined))


def in_header_map(*headers: tuple[str, str], path: str = GRPC_PATH, verb: str = "POST") -> CheckRequest:
    """Return a request as Envoy writes it with ``encode_raw_headers``."""
    values = [HeaderValue(key=key, raw_value=value.encode("latin-1")) for key, value in headers]
    return _request(AttributeContext.HttpRequest(method=verb, path=path, header_map=HeaderMap(headers=values)))


FORMS: tuple[Form, ...] = (in_headers, in_header_map)


def _request(http: AttributeContext.HttpRequest) -> CheckRequest:
    return CheckRequest(attributes=AttributeContext(request=AttributeContext.Request(http=http)))


def bearer(token: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {token}")


def is_sound(response: CheckResponse) -> bool:
    """Say whether both halves of ``response`` have the same verdict, however an Envoy reads them."""
    verdict = response.WhichOneof("http_response")
    if response.status.code == 0:
        return verdict == "ok_response"
    denied = response.denied_response
    kinds = [option.header.value for option in denied.headers if option.header.key == "content-type"]
    if any(kind.startswith(IN_BAND) for kind in kinds):
        return verdict == "denied_response" and denied.status.code == 200 and response.status.code in dict(STATUSES)
    return verdict == "denied_response" and (response.status.code, denied.status.code) in STATUSES


IN_BAND = ("application/grpc-web+", "application/connect+")
"""Prefixes of content types whose refusals have the HTTP status 200, because their clients read no other."""

STATUSES = {(16, 401), (7, 403), (8, 429), (14, 503), (13, 500)}
"""The gRPC and HTTP statuses of refusals, in pairs."""


def sentence(body: Any) -> tuple[str, str]:
    """Return the code of Connect and the sentence that a refusal over HTTP has, wherever it has them."""
    assert body.keys() == {"error", "code", "message", "details"}
    assert body["error"] == body["message"]
    return body["code"], body["message"]


class Denial:
    """A denied response, read as a client of Envoy reads it."""

    def __init__(self, response: CheckResponse) -> None:
        assert is_sound(response)
        assert response.status.code != 0
        self.code = response.status.code
        self.http_status = response.denied_response.status.code
        self.body = response.denied_response.body
        self.headers = {option.header.key: option.header.value for option in response.denied_response.headers}
        self.raw = {option.header.key: option.header.raw_value for option in response.denied_response.headers}

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def details(self) -> bytes:
        text = self.headers["grpc-status-details-bin"]
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)

    @property
    def reason(self) -> str:
        return str(self._detail(ErrorInfo()).reason)

    @property
    def retry_delay(self) -> int:
        return int(self._detail(RetryInfo()).retry_delay.seconds)

    def _detail(self, message: Any) -> Any:
        [packed] = [packed for packed in Status.FromString(self.details).details if packed.Is(message.DESCRIPTOR)]
        packed.Unpack(message)
        return message
