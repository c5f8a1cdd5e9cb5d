"""Verified organizations for gRPC: the judge, its rules, and what it needs of the world.

Every name is imported when it is first used (PEP 562), so that a program which only fetches tokens does not load
what decides calls.

PYTEST_DONT_REWRITE, because a program may import this before pytest finds the plugin (:mod:`authz.testing.plugin`).
"""

import importlib
import typing

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

_NAMES = {
    "authz.judge.authorizer": ("Authorizer",),
    "authz.call.call": ("Call",),
    "authz.call.principal": (
        "ANONYMOUS",
        "Principal",
        "current_principal",
    ),
    "authz.call.requirements": (
        "Assurance",
        "Requirements",
    ),
    "authz.issuer.credentials": ("call_credentials",),
    "authz.decisions.decision": ("Decision",),
    "authz.decisions.log": ("DecisionLog",),
    "authz.decisions.otel.log": ("OpenTelemetryLog",),
    "authz.decisions.otel.metrics": ("OpenTelemetryMetrics",),
    "authz.decisions.otel.spans": ("OpenTelemetrySpans",),
    "authz.decisions.prometheus": ("PrometheusMetrics",),
    "authz.organizations.directory": ("Directory",),
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
    "authz.issuer.introspection": ("Introspector",),
    "authz.judge.hearing": ("Hearing",),
    "authz.call.refusal": ("Refusal",),
    "authz.judge.mesh": ("MeshPeers",),
    "authz.judge.orders.file": ("OrdersFile",),
    "authz.call.metadata": ("TrustedMetadata",),
    "authz.call.peer": ("Peer",),
    "authz.policy": ("Policy",),
    "authz.token.profiles": ("TokenProfile",),
    "authz.judge.reload": ("PolicyReloader",),
    "authz.issuer.token_source": (
        "ClientCredentials",
        "TokenSource",
    ),
    "authz.runtime.network.transport": ("Transport",),
    "authz.runtime.telemetry": ("LogSampling",),
    "authz.store.shared_state": ("SharedState",),
    "authz.issuer.verifier": ("Verifier",),
    "authz.issuer.verifiers": ("Verifiers",),
    "authz.organizations.workos": ("WorkOSDirectory",),
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
