"""A refusal as the caller sees it, the same from interceptors and through Envoy.

The caller gets the status, one fixed sentence and a machine-readable reason;
never a token, a claim's value or an exception's text.
"""

import functools
import math
import re
from dataclasses import dataclass, field

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from authz.call.call import Entry
from authz.errors import (
    AuthzError,
    Code,
    ConfigError,
    InsufficientScopeError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from authz.runtime.network.urls import check_url

DOMAIN = "grpc-org-authz"
"""``google.rpc.ErrorInfo.domain`` of every refusal."""

_HTTP_STATUS = {
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNAVAILABLE: 503,
    Code.INTERNAL: 500,
}
_MESSAGES = {
    # The first two are the words of WorkOS's example API.
    Code.UNAUTHENTICATED: "Invalid token",
    Code.PERMISSION_DENIED: "Permission denied",
    Code.RESOURCE_EXHAUSTED: "Quota exceeded",
    Code.UNAVAILABLE: "Authorization is unavailable",
    Code.INTERNAL: "Internal error",
}
_NO_TOKEN = "No token provided"  # noqa: S105 - a sentence

_MAX_RETRY_AFTER = 60
_LONGEST_QUOTA_WAIT = 3600

# What may stand between quotes, which includes every character of a scope (RFC 6750 section 3).
_QUOTABLE = re.compile(r"[ !#-\[\]-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The answer to a caller who is refused.

    Args:
        code: the gRPC status.
        reason: the error's, as it is logged.
        http_status: the HTTP status from which Envoy makes the same gRPC status.
        message: one fixed sentence per outcome.
        headers: ``www-authenticate`` (RFC 6750 section 3) or ``retry-after``, for HTTP and as trailing metadata.
        details: a serialized ``google.rpc.Status`` with ``ErrorInfo``, and with ``RetryInfo`` if ``wait`` is not 0.
        wait: milliseconds after which another attempt may help; 0 if none will.

    """

    code: Code
    reason: str
    http_status: int
    message: str
    headers: tuple[Entry, ...]
    details: bytes
    wait: int

    def __hash__(self) -> int:
        """Return the hash of the details, which bytes remember: every refused call looks up what is made of this."""
        return hash(self.details)

    @property
    def trailers(self) -> tuple[Entry, ...]:
        """The trailing metadata of a gRPC answer."""
        return (*self.headers, *_pushback(self.wait), Entry("grpc-status-details-bin", self.details))


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What ``www-authenticate`` says of this API (RFC 6750 section 3).

    Args:
        realm: its name (RFC 9110 section 11.5).
        resource_metadata: the https URL of its protected resource metadata (RFC 9728 section 5.1), or ``""``.

    Attributes:
        text: the beginning of the challenge.

    Raises:
        ConfigError: a quote, a backslash, a character that is not printable ASCII, or a URL that is not https.

    """

    realm: str = "api"
    resource_metadata: str = ""
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check that both may stand between quotes, and write the beginning of the challenge."""
        if not _QUOTABLE.fullmatch(self.realm):
            raise ConfigError('realm: printable ASCII without " and \\ is needed: it stands in www-authenticate')
        if self.resource_metadata:
            check_url(self.resource_metadata, "resource_metadata")
            if '"' in self.resource_metadata:
                raise ConfigError("resource_metadata: the URL must have no quotes: it stands in www-authenticate")
        text = f'Bearer realm="{self.realm}"'
        if self.resource_metadata:
            text += f', resource_metadata="{self.resource_metadata}"'
        object.__setattr__(self, "text", text)


def refusal_of(error: AuthzError, challenge: Challenge) -> Refusal:
    """Return what the caller sees of ``error``."""
    wait, scope = 0, ""
    if isinstance(error, UnauthenticatedError):
        # As most are, and the three below are not.
        pass
    elif isinstance(error, UnavailableError):
        wait = 1000 * min(max(math.ceil(error.retry_after), 1), _MAX_RETRY_AFTER)
    elif isinstance(error, ResourceExhaustedError):
        wait = _milliseconds(error.retry_after)
    elif isinstance(error, InsufficientScopeError):
        scope = " ".join(sorted(error.scopes))
    return _refusal(error.code, error.reason, challenge.text, wait, scope)


def _milliseconds(seconds: float) -> int:
    """Return how long to wait for a quota: rounded up to one of a few lengths, as each makes a refusal to remember."""
    step = 50 if seconds <= 1 else 1000 if seconds <= _MAX_RETRY_AFTER else 60_000
    return min(max(math.ceil(seconds * 1000 / step), 1) * step, _LONGEST_QUOTA_WAIT * 1000)


# By the text of the challenge, which remembers its hash.
@functools.lru_cache(512)
def _refusal(code: Code, reason: str, challenge: str, wait: int, scope: str) -> Refusal:
    message = _NO_TOKEN if reason == "token_missing" else _MESSAGES[code]
    # AIP-193 wants the reason in upper case.
    details: list[Message] = [ErrorInfo(reason=reason.upper(), domain=DOMAIN)]
    headers: tuple[Entry, ...] = ()
    if wait:
        seconds, milliseconds = divmod(wait, 1000)
        details.append(RetryInfo(retry_delay=Duration(seconds=seconds, nanos=milliseconds * 1_000_000)))
        # Whole seconds (RFC 9110 section 10.2.3).
        headers = (Entry("retry-after", str(seconds + (milliseconds > 0))),)
    if code in (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED):
        headers = (Entry("www-authenticate", f"{challenge}{_error(code, reason)}{_scope(scope)}"),)
    status = Status(code=code.value, message=message, details=map(_packed, details))
    return Refusal(
        code=code,
        reason=reason,
        http_status=_HTTP_STATUS[code],
        message=message,
        headers=headers,
        details=status.SerializeToString(deterministic=True),
        wait=wait,
    )


def _pushback(wait: int) -> tuple[Entry, ...]:
    # gRFC A6: without it a client whose retry policy names the status makes all its attempts within a tenth of a
    # second. If the wait is longer than any of an outage, -1 tells the client not to try again.
    if not wait:
        return ()
    return (Entry("grpc-retry-pushback-ms", str(wait) if wait <= 1000 * _MAX_RETRY_AFTER else "-1"),)


def _error(code: Code, reason: str) -> str:
    # RFC 6750 section 3.1: no error for a call without credentials, whose sender may not know that any are needed.
    if reason == "token_missing":
        return ""
    if code is Code.PERMISSION_DENIED:
        return ', error="insufficient_scope"'
    return f', error="{"invalid_request" if reason == "token_malformed" else "invalid_token"}"'


def _scope(scope: str) -> str:
    # A scope with a mistake, from a configuration, must not break the header.
    return f', scope="{scope}"' if _QUOTABLE.fullmatch(scope) else ""


def _packed(detail: Message) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed
