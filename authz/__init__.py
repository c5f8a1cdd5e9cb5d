"""Verified organizations for gRPC: the judge, its rules, and what it needs of the world.

Every name is imported when it is first used (PEP 562), so that a program which only fetches tokens does not load
what decides calls.

PYTEST_DONT_REWRITE, because a program may import this before pytest finds the plugin (:mod:`authz.testing.plugin`).
"""

import typing

from authz.lazy import lazy_names as _lazy_names

if typing.TYPE_CHECKING:
    from authz.call.call import Call
    from authz.call.metadata import TrustedMetadata
    from authz.call.peer import Peer
    from authz.call.principal import ANONYMOUS, Principal, current_principal
    from authz.call.refusal import Refusal
    from authz.call.requirements import Assurance, Requirements
    from authz.decisions.decision import Decision
    from authz.decisions.log import DecisionLog
    from authz.decisions.otel.log import OpenTelemetryLog
    from authz.decisions.otel.metrics import OpenTelemetryMetrics
    from authz.decisions.otel.spans import OpenTelemetrySpans
    from authz.decisions.prometheus import PrometheusMetrics
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
    from authz.issuer.credentials import call_credentials
    from authz.issuer.introspection import Introspector
    from authz.issuer.token_source import ClientCredentials, TokenSource
    from authz.issuer.verifier import Verifier
    from authz.issuer.verifiers import Verifiers
    from authz.judge.authorizer import Authorizer
    from authz.judge.hearing import Hearing
    from authz.judge.mesh import MeshPeers
    from authz.judge.orders.file import OrdersFile
    from authz.judge.reload import PolicyReloader
    from authz.organizations.directory import Directory
    from authz.organizations.workos import WorkOSDirectory
    from authz.policy import Policy
    from authz.runtime.network.transport import Transport
    from authz.runtime.telemetry import LogSampling
    from authz.store.shared_state import SharedState
    from authz.token.profiles import TokenProfile

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
    "DecisionLog",
    "Directory",
    "DirectoryUnavailableError",
    "Hearing",
    "InsufficientScopeError",
    "InternalError",
    "IntrospectionUnavailableError",
    "Introspector",
    "KeyNotFoundError",
    "KeySetUnavailableError",
    "LogSampling",
    "MeshMetadataError",
    "MeshPeers",
    "MeshUndecidedError",
    "OpenTelemetryLog",
    "OpenTelemetryMetrics",
    "OpenTelemetrySpans",
    "OrdersFile",
    "Peer",
    "PeerUnknownError",
    "PermissionDeniedError",
    "Policy",
    "PolicyReloader",
    "Principal",
    "PrometheusMetrics",
    "Refusal",
    "Requirements",
    "ResourceExhaustedError",
    "SharedState",
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

if not typing.TYPE_CHECKING:
    __getattr__, __dir__ = _lazy_names(
        __name__,
        {
            ".call.call": ("Call",),
            ".call.metadata": ("TrustedMetadata",),
            ".call.peer": ("Peer",),
            ".call.principal": (
                "ANONYMOUS",
                "Principal",
                "current_principal",
            ),
            ".call.refusal": ("Refusal",),
            ".call.requirements": (
                "Assurance",
                "Requirements",
            ),
            ".decisions.decision": ("Decision",),
            ".decisions.log": ("DecisionLog",),
            ".decisions.otel.log": ("OpenTelemetryLog",),
            ".decisions.otel.metrics": ("OpenTelemetryMetrics",),
            ".decisions.otel.spans": ("OpenTelemetrySpans",),
            ".decisions.prometheus": ("PrometheusMetrics",),
            ".errors": (
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
            ".issuer.credentials": ("call_credentials",),
            ".issuer.introspection": ("Introspector",),
            ".issuer.token_source": (
                "ClientCredentials",
                "TokenSource",
            ),
            ".issuer.verifier": ("Verifier",),
            ".issuer.verifiers": ("Verifiers",),
            ".judge.authorizer": ("Authorizer",),
            ".judge.hearing": ("Hearing",),
            ".judge.mesh": ("MeshPeers",),
            ".judge.orders.file": ("OrdersFile",),
            ".judge.reload": ("PolicyReloader",),
            ".organizations.directory": ("Directory",),
            ".organizations.workos": ("WorkOSDirectory",),
            ".policy": ("Policy",),
            ".runtime.network.transport": ("Transport",),
            ".runtime.telemetry": ("LogSampling",),
            ".store.shared_state": ("SharedState",),
            ".token.profiles": ("TokenProfile",),
        },
    )
