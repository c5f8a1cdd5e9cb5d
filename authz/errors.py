"""What can go wrong, as one tree.

Every verdict other than "allow" is one of these, at every door::

    AuthzError                        code, reason; never raised itself
    ├── UnauthenticatedError          UNAUTHENTICATED, HTTP 401: who are you? unauthenticated
    │   ├── TokenMissingError             token_missing
    │   ├── TokenMalformedError           token_malformed
    │   ├── AlgorithmNotAllowedError      algorithm_not_allowed
    │   ├── BadSignatureError             signature_invalid
    │   ├── KeyNotFoundError              key_not_found
    │   ├── ClaimError                    claim_missing, claim_invalid
    │   │   ├── TokenExpiredError         token_expired
    │   │   └── PeerUnknownError          claim_invalid; a door that can tell asks again
    │   ├── TokenInactiveError            token_inactive
    │   ├── TokenDeniedError              token_denied
    │   └── MeshMetadataError             mesh_metadata_invalid
    ├── PermissionDeniedError         PERMISSION_DENIED, HTTP 403: you may not, permission_denied
    │   │                                 also policy_denied, organization_suspended, organization_unknown,
    │   │                                 organization_mismatch, organization_unverified, request_malformed
    │   └── InsufficientScopeError        insufficient_scope
    ├── ResourceExhaustedError        RESOURCE_EXHAUSTED, HTTP 429: too much, quota_exceeded
    ├── UnavailableError              UNAVAILABLE, HTTP 503: cannot decide now, unavailable
    │   ├── KeySetUnavailableError        key_set_unavailable
    │   │   └── KeyUndecidedError             key_undecided
    │   ├── IntrospectionUnavailableError introspection_unavailable
    │   ├── DirectoryUnavailableError     directory_unavailable
    │   ├── MeshUndecidedError            mesh_undecided
    │   ├── OverloadedError               overloaded
    │   └── TokenEndpointError            token_endpoint_unavailable
    └── InternalError                 INTERNAL, HTTP 500: the unforeseen, internal
    ConfigError(ValueError)           raised while an object is built, never per call

A message is for the developer who reads a log: fixed words, perhaps the URL of an
endpoint and why it gave no answer, never a token, a claim's value or another exception's text.
Callers of the API see neither message nor class, only what
:mod:`authz.call.refusal` makes of the code and the reason.
"""

import enum
from collections.abc import Collection
from typing import ClassVar


class Code(enum.Enum):
    """A verdict that is not "allow": the name is a ``grpc.StatusCode``'s, the value its number."""

    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class AuthzError(Exception):
    """The base of every refusal; catch it, but raise one of its subclasses."""

    code: ClassVar[Code]
    reason: str

    def __init__(self, message: str = "") -> None:
        if type(self) is AuthzError:
            raise TypeError("AuthzError is a base class: raise one of its subclasses")
        super().__init__(message or self.reason)


class UnauthenticatedError(AuthzError):
    """The call carries no identity that can be believed."""

    code = Code.UNAUTHENTICATED
    reason = "unauthenticated"


class TokenMissingError(UnauthenticatedError):
    """The call carries no ``authorization``."""

    reason = "token_missing"


class TokenMalformedError(UnauthenticatedError):
    """What was sent as a token is not one compact JWS as RFC 7515 writes it."""

    reason = "token_malformed"


class AlgorithmNotAllowedError(UnauthenticatedError):
    """The token names a signature algorithm that is not on the allow-list."""

    reason = "algorithm_not_allowed"


class BadSignatureError(UnauthenticatedError):
    """The signature is not the issuer's."""

    reason = "signature_invalid"


class KeyNotFoundError(UnauthenticatedError):
    """The issuer's current key set has no usable key of the token's ``kid``."""

    reason = "key_not_found"


class ClaimError(UnauthenticatedError):
    """A claim is missing or is not what it must be; ``claim`` is its name."""

    reason = "claim_invalid"

    def __init__(self, claim: str, message: str = "", *, missing: bool = False) -> None:
        self.claim = claim
        if missing:
            self.reason = "claim_missing"
        super().__init__(message or f"claim {claim!r} is {'missing' if missing else 'invalid'}")


class TokenExpiredError(ClaimError):
    """The token was good once."""

    reason = "token_expired"

    def __init__(self) -> None:
        super().__init__("exp", "the token has expired")


class PeerUnknownError(ClaimError):
    """The verdict depends on who is at the other end of the connection, and this door cannot tell."""

    def __init__(self, claim: str) -> None:
        super().__init__(claim, "depends on the peer of the connection, which is not known here")


class TokenInactiveError(UnauthenticatedError):
    """The issuer or the operator has withdrawn the token."""

    reason = "token_inactive"


class TokenDeniedError(UnauthenticatedError):
    """The issuer refuses us a token; it is asked again after ``retry_after`` seconds, or with another secret."""

    reason = "token_denied"

    def __init__(self, message: str = "", *, retry_after: float = 1.0) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class MeshMetadataError(UnauthenticatedError):
    """A proxy that is believed said who calls, in a way that nobody can believe."""

    reason = "mesh_metadata_invalid"


class PermissionDeniedError(AuthzError):
    """The caller is known and may not do this; ``rule`` is the name of the policy's rule that says so, if one does."""

    code = Code.PERMISSION_DENIED
    reason = "permission_denied"

    def __init__(self, message: str = "", *, reason: str = "permission_denied", rule: str = "") -> None:
        self.reason, self.rule = reason, rule
        super().__init__(message)


class InsufficientScopeError(PermissionDeniedError):
    """The token does not grant all of ``scopes``, which the operator wants here and whose names the caller is told."""

    reason = "insufficient_scope"

    def __init__(self, scopes: Collection[str], *, rule: str = "") -> None:
        self.scopes = frozenset(scopes)
        super().__init__(reason=self.reason, rule=rule)


class ResourceExhaustedError(AuthzError):
    """The caller's organization has used up its quota; it may try again after ``retry_after`` seconds."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "quota_exceeded"

    def __init__(self, message: str = "", *, retry_after: float = 1.0) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class UnavailableError(AuthzError):
    """No verdict can be had now; a caller may try again after ``retry_after`` seconds.

    ``cause`` says what keeps another server from answering, if one is needed, in the words of
    :mod:`authz.runtime.network.causes`.
    """

    code = Code.UNAVAILABLE
    reason = "unavailable"

    def __init__(self, message: str = "", *, retry_after: float = 1.0, cause: str = "") -> None:
        self.retry_after, self.cause = retry_after, cause
        super().__init__(message)


class KeySetUnavailableError(UnavailableError):
    """The issuer's keys cannot be had."""

    reason = "key_set_unavailable"


class KeyUndecidedError(KeySetUnavailableError):
    """Whether the issuer has a key of the token's ``kid`` cannot be looked up before ``retry_after`` seconds are over.

    As often as may be, the keys have been fetched for unknown ``kid``s, which anybody can invent.
    """

    reason = "key_undecided"


class IntrospectionUnavailableError(UnavailableError):
    """The issuer cannot be asked whether the token is still active.

    ``is_outage`` if it does not answer at all, or says itself that it fails; not if a limit, its own or a caller's,
    or a mistake in the configuration is the reason.
    """

    reason = "introspection_unavailable"

    def __init__(
        self, message: str = "", *, retry_after: float = 1.0, cause: str = "", is_outage: bool = False
    ) -> None:
        self.is_outage = is_outage
        super().__init__(message, retry_after=retry_after, cause=cause)


class DirectoryUnavailableError(UnavailableError):
    """The directory cannot be asked who the caller's organization is, and nothing is remembered of it."""

    reason = "directory_unavailable"


class MeshUndecidedError(UnavailableError):
    """A proxy let the call pass although nobody had decided it (``failure_mode_allow``)."""

    reason = "mesh_undecided"


class OverloadedError(UnavailableError):
    """As many calls wait for a verdict already as may, of all callers together or of this one."""

    reason = "overloaded"


class TokenEndpointError(UnavailableError):
    """The token endpoint gave no token."""

    reason = "token_endpoint_unavailable"


class InternalError(AuthzError):
    """Something unforeseen happened while deciding, so the door stays shut."""

    code = Code.INTERNAL
    reason = "internal"


class ConfigError(ValueError):
    """The configuration cannot work; the message names the setting and the remedy."""


def suspended() -> PermissionDeniedError:
    """Return the refusal of every call of an organization that is suspended, by the operator or by the policy."""
    return PermissionDeniedError("the organization is suspended", reason="organization_suspended")
