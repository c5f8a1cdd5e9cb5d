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
    │   │   └── PeerUnknownError          claim_invalid; a door that knows the peer asks again
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
    │   ├── OrdersUnknownError            orders_unknown
    │   ├── QuotaUnavailableError         quota_unavailable
    │   ├── MeshUndecidedError            mesh_undecided
    │   ├── OverloadedError               overloaded
    │   └── TokenEndpointError            token_endpoint_unavailable
    └── InternalError                 INTERNAL, HTTP 500: an unforeseen failure, internal
    ConfigError(ValueError)           raised while an object is built, never per call

A message is for the developer who reads a log: fixed words, perhaps with the URL of an
endpoint and the cause of its failure; never a token, a claim's value or another exception's text.
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

    # There is one object of each. An enum's own hash, of the name, takes as long as all else of a look-up.
    __hash__ = object.__hash__


class AuthzError(Exception):
    """The base of every refusal; catch it, but raise one of its subclasses.

    ``order_source`` says where the order came from that is the reason, such as ``operator``; empty if there is none.
    """

    code: ClassVar[Code]
    reason: str
    order_source: str = ""

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
    """The ``authorization`` is not one bearer token in the compact form of a JWS (RFC 7515)."""

    reason = "token_malformed"


class AlgorithmNotAllowedError(UnauthenticatedError):
    """The token names a signature algorithm that is not on the allow-list."""

    reason = "algorithm_not_allowed"


class BadSignatureError(UnauthenticatedError):
    """The signature is not the issuer's."""

    reason = "signature_invalid"


class KeyNotFoundError(UnauthenticatedError):
    """The issuer's current key set has no usable key with the token's ``kid``."""

    reason = "key_not_found"


class ClaimError(UnauthenticatedError):
    """A claim is missing or not valid; ``claim`` is its name."""

    reason = "claim_invalid"

    def __init__(self, claim: str, message: str = "", *, missing: bool = False) -> None:
        self.claim = claim
        if missing:
            self.reason = "claim_missing"
        super().__init__(message or f"claim {claim!r} is {'missing' if missing else 'invalid'}")


class TokenExpiredError(ClaimError):
    """The token has expired."""

    reason = "token_expired"

    def __init__(self) -> None:
        super().__init__("exp", "the token has expired")


class PeerUnknownError(ClaimError):
    """The verdict depends on the peer of the connection, which this door does not know."""

    def __init__(self, claim: str) -> None:
        super().__init__(claim, "depends on the peer of the connection, which is not known here")


class TokenInactiveError(UnauthenticatedError):
    """The issuer or the operator has withdrawn the token."""

    reason = "token_inactive"


class TokenDeniedError(UnauthenticatedError):
    """The issuer refuses us a token; we ask again after ``retry_after`` seconds, or with another secret."""

    reason = "token_denied"

    def __init__(self, message: str = "", *, retry_after: float = 1.0) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class MeshMetadataError(UnauthenticatedError):
    """A trusted proxy named the caller in metadata that is not valid."""

    reason = "mesh_metadata_invalid"


class PermissionDeniedError(AuthzError):
    """The caller is known and may not do this; ``rule`` names the policy's rule that denies it, if one does."""

    code = Code.PERMISSION_DENIED
    reason = "permission_denied"

    def __init__(self, message: str = "", *, reason: str = "permission_denied", rule: str = "") -> None:
        self.reason, self.rule = reason, rule
        super().__init__(message)


class InsufficientScopeError(PermissionDeniedError):
    """The token lacks some of ``scopes``, which the operator requires; the refusal names them to the caller."""

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
    """No verdict is possible now; a caller may try again after ``retry_after`` seconds.

    If another server does not answer, ``cause`` says why, in the words of :mod:`authz.runtime.network.causes`.
    """

    code = Code.UNAVAILABLE
    reason = "unavailable"

    def __init__(self, message: str = "", *, retry_after: float = 1.0, cause: str = "") -> None:
        self.retry_after, self.cause = retry_after, cause
        super().__init__(message)


class KeySetUnavailableError(UnavailableError):
    """The issuer's keys cannot be fetched."""

    reason = "key_set_unavailable"


class KeyUndecidedError(KeySetUnavailableError):
    """The token's ``kid`` is unknown, and the issuer's keys may not be fetched again for ``retry_after`` seconds.

    Fetches for unknown ``kid``s are limited, because anybody can invent one.
    """

    reason = "key_undecided"


class IntrospectionUnavailableError(UnavailableError):
    """The issuer cannot be asked whether the token is still active.

    ``is_outage`` if it does not answer, or answers that it fails; not if the cause is a limit (the issuer's or the
    caller's) or a mistake in the configuration.
    """

    reason = "introspection_unavailable"

    def __init__(
        self, message: str = "", *, retry_after: float = 1.0, cause: str = "", is_outage: bool = False
    ) -> None:
        self.is_outage = is_outage
        super().__init__(message, retry_after=retry_after, cause=cause)


class DirectoryUnavailableError(UnavailableError):
    """The directory does not say who the caller's organization is, and no earlier answer is remembered."""

    reason = "directory_unavailable"


class OrdersUnknownError(UnavailableError):
    """Whom the operator keeps out is not known yet, because the store that holds the orders does not answer."""

    reason = "orders_unknown"


class QuotaUnavailableError(UnavailableError):
    """The store in which several servers count calls and streams does not answer, and none may be counted without."""

    reason = "quota_unavailable"


class MeshUndecidedError(UnavailableError):
    """A proxy let the call pass without a verdict (``failure_mode_allow``)."""

    reason = "mesh_undecided"


class OverloadedError(UnavailableError):
    """Too many calls wait for a verdict, of all callers together or of this one."""

    reason = "overloaded"


class TokenEndpointError(UnavailableError):
    """The token endpoint gave no token."""

    reason = "token_endpoint_unavailable"


class InternalError(AuthzError):
    """Something unforeseen happened while deciding, so the call is refused."""

    code = Code.INTERNAL
    reason = "internal"


class ConfigError(ValueError):
    """The configuration cannot work; the message names the setting and the remedy."""


def suspended() -> PermissionDeniedError:
    """Return the refusal of every call of an organization that is suspended, by the operator or by the policy."""
    return PermissionDeniedError("the organization is suspended", reason="organization_suspended")
