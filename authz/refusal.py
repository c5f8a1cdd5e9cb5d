"""A refusal as the caller sees it, the same in process and through Envoy.

A caller learns one fixed sentence, the status, and a machine-readable reason;
never a token, a claim's value or an exception's text.
"""

import functools
import math
import re
from dataclasses import dataclass

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from authz.call import Entry
from authz.errors import AuthzError, Code, ConfigError, UnavailableError

DOMAIN = "grpc-org-authz"
"""``google.rpc.ErrorInfo.domain`` of every refusal."""

_HTTP_STATUS = {
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.UNAVAILABLE: 503,
    Code.INTERNAL: 500,
}
_MESSAGES = {
    # The first two are the words of WorkOS's example API.
    Code.UNAUTHENTICATED: "Invalid token",
    Code.PERMISSION_DENIED: "Permission denied",
    Code.UNAVAILABLE: "Authorization is unavailable",
    Code.INTERNAL: "Internal error",
}
_NO_TOKEN = "No token provided"  # noqa: S105 - a sentence

_MAX_RETRY_AFTER = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a caller who is refused gets.

    Args:
        code: the gRPC status.
        http_status: its HTTP twin, from which Envoy makes the same gRPC status.
        message: one fixed sentence per outcome.
        headers: ``www-authenticate`` (RFC 6750 section 3) or ``retry-after``, for HTTP and as trailing metadata.
        details: a serialized ``google.rpc.Status`` with ``ErrorInfo``, and ``RetryInfo`` where it may help.

    """

    code: Code
    http_status: int
    message: str
    headers: tuple[Entry, ...]
    details: bytes

    @property
    def trailers(self) -> tuple[Entry, ...]:
        """The trailing metadata of a gRPC answer."""
        return (*self.headers, Entry("grpc-status-details-bin", self.details))


def check_realm(realm: str) -> str:
    """Return ``realm`` if it can stand in a challenge (RFC 9110 section 11.5).

    Raises:
        ConfigError: a quote, a backslash or a character that is not printable ASCII.

    """
    if not re.fullmatch(r"[ !#-\[\]-~]+", realm):
        raise ConfigError('realm: printable ASCII without " and \\ is needed, because it stands in www-authenticate')
    return realm


def refusal_of(error: AuthzError, realm: str) -> Refusal:
    """Return what the caller sees of ``error``."""
    retry_after = 0
    if isinstance(error, UnavailableError):
        retry_after = min(max(math.ceil(error.retry_after), 1), _MAX_RETRY_AFTER)
    return _refusal(error.code, error.reason, realm, retry_after)


@functools.lru_cache(256)
def _refusal(code: Code, reason: str, realm: str, retry_after: int) -> Refusal:
    message = _NO_TOKEN if reason == "token_missing" else _MESSAGES[code]
    # AIP-193 wants the reason in upper case.
    details: list[Message] = [ErrorInfo(reason=reason.upper(), domain=DOMAIN)]
    headers: tuple[Entry, ...] = ()
    if retry_after:
        details.append(RetryInfo(retry_delay=Duration(seconds=retry_after)))
        headers = (Entry("retry-after", str(retry_after)),)
    challenge = _challenge(code, reason, realm)
    if challenge:
        headers = (Entry("www-authenticate", challenge),)
    status = Status(code=code.value, message=message, details=map(_packed, details))
    return Refusal(
        code=code,
        http_status=_HTTP_STATUS[code],
        message=message,
        headers=headers,
        details=status.SerializeToString(deterministic=True),
    )


def _challenge(code: Code, reason: str, realm: str) -> str:
    # RFC 6750 section 3.1. No error for a call without credentials: its sender may not know that any are needed.
    challenge = f'Bearer realm="{realm}"'
    if code is Code.PERMISSION_DENIED:
        return f'{challenge}, error="insufficient_scope"'
    if code is not Code.UNAUTHENTICATED:
        return ""
    if reason == "token_missing":
        return challenge
    return f'{challenge}, error="{"invalid_request" if reason == "token_malformed" else "invalid_token"}"'


def _packed(detail: Message) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed
