"""Verified organizations for gRPC: the judge, its rules, and what it needs of the world."""

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
