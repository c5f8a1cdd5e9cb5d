"""Verified organizations for gRPC: the judge, its rules, and what it needs of the world.

Every name is imported when it is first used (PEP 562), so that a program which only fetches tokens does not load
what decides calls.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from authz.authorizer import Authorizer
    from authz.call import ANONYMOUS, Call, Principal, Requirements, current_principal
    from authz.credentials import call_credentials
    from authz.decision import Decision
    from authz.directory import Directory
    from authz.errors import (
        AlgorithmNotAllowedError,
        AuthzError,
        BadSignatureError,
        ClaimError,
        Code,
        ConfigError,
        DirectoryUnavailableError,
        InsufficientScopeError,
        InternalError,
        IntrospectionUnavailableError,
        KeyNotFoundError,
        KeySetUnavailableError,
        MeshMetadataError,
        MeshUndecidedError,
        PeerUnknownError,
        PermissionDeniedError,
        ResourceExhaustedError,
        TokenDeniedError,
        TokenEndpointError,
        TokenExpiredError,
        TokenInactiveError,
        TokenMalformedError,
        TokenMissingError,
        UnauthenticatedError,
        UnavailableError,
    )
    from authz.introspection import Assurance, Introspector
    from authz.mesh import MeshPeers
    from authz.metadata import TrustedMetadata
    from authz.peer import Peer
    from authz.policy import Policy
    from authz.profiles import TokenProfile
    from authz.reload import PolicyReloader
    from authz.token_source import ClientCredentials, TokenSource
    from authz.transport import Transport
    from authz.verifier import Verifier
    from authz.verifiers import Verifiers
    from authz.workos_directory import WorkOSDirectory

__all__ = [
    "ANONYMOUS",
    "AlgorithmNotAllowedError",
    "Assurance",
    "Authorizer",
    "AuthzError",
    "BadSignatureError",
    "Call",
    "ClaimError",
    "ClientCredentials",
    "Code",
    "ConfigError",
    "Decision",
    "Directory",
    "DirectoryUnavailableError",
    "InsufficientScopeError",
    "InternalError",
    "IntrospectionUnavailableError",
    "Introspector",
    "KeyNotFoundError",
    "KeySetUnavailableError",
    "MeshMetadataError",
    "MeshPeers",
    "MeshUndecidedError",
    "Peer",
    "PeerUnknownError",
    "PermissionDeniedError",
    "Policy",
    "PolicyReloader",
    "Principal",
    "Requirements",
    "ResourceExhaustedError",
    "TokenDeniedError",
    "TokenEndpointError",
    "TokenExpiredError",
    "TokenInactiveError",
    "TokenMalformedError",
    "TokenMissingError",
    "TokenProfile",
    "TokenSource",
    "Transport",
    "TrustedMetadata",
    "UnauthenticatedError",
    "UnavailableError",
    "Verifier",
    "Verifiers",
    "WorkOSDirectory",
    "call_credentials",
    "current_principal",
]

_NAMES = {
    "authz.authorizer": ("Authorizer",),
    "authz.call": (
        "ANONYMOUS",
        "Call",
        "Principal",
        "Requirements",
        "current_principal",
    ),
    "authz.credentials": ("call_credentials",),
    "authz.decision": ("Decision",),
    "authz.directory": ("Directory",),
    "authz.errors": (
        "AlgorithmNotAllowedError",
        "AuthzError",
        "BadSignatureError",
        "ClaimError",
        "Code",
        "ConfigError",
        "DirectoryUnavailableError",
        "InsufficientScopeError",
        "InternalError",
        "IntrospectionUnavailableError",
        "KeyNotFoundError",
        "KeySetUnavailableError",
        "MeshMetadataError",
        "MeshUndecidedError",
        "PeerUnknownError",
        "PermissionDeniedError",
        "ResourceExhaustedError",
        "TokenDeniedError",
        "TokenEndpointError",
        "TokenExpiredError",
        "TokenInactiveError",
        "TokenMalformedError",
        "TokenMissingError",
        "UnauthenticatedError",
        "UnavailableError",
    ),
    "authz.introspection": (
        "Assurance",
        "Introspector",
    ),
    "authz.mesh": ("MeshPeers",),
    "authz.metadata": ("TrustedMetadata",),
    "authz.peer": ("Peer",),
    "authz.policy": ("Policy",),
    "authz.profiles": ("TokenProfile",),
    "authz.reload": ("PolicyReloader",),
    "authz.token_source": (
        "ClientCredentials",
        "TokenSource",
    ),
    "authz.transport": ("Transport",),
    "authz.verifier": ("Verifier",),
    "authz.verifiers": ("Verifiers",),
    "authz.workos_directory": ("WorkOSDirectory",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> typing.Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def __dir__() -> list[str]:
    return __all__
