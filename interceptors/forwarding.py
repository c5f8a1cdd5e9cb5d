"""The verified caller of the RPC that is being served, passed on to the next service by a ``grpc`` channel."""

from typing import Any

import grpc

from authz.call.metadata import TrustedMetadata
from authz.call.principal import ANONYMOUS, Principal, current_principal

from .kinds import Continuation, EveryKind, changed


def forward_principal_interceptors(*, trusted: TrustedMetadata | None = None) -> tuple[EveryKind, ...]:
    """Return interceptors that tell the next service who calls this one: ``grpc.intercept_channel(channel, *these)``.

    Every call that is made while an RPC is served carries its verified caller, :func:`authz.current_principal`, as
    trusted metadata. Elsewhere, and on public methods, there is none; what the calling code itself puts
    under a trusted name never goes out.
    The next service must believe such metadata only from services that it knows, such as over mTLS;
    ``AuthzInterceptor`` believes it only from the peers of ``trust``.

    Args:
        trusted: the names of the metadata, as the next service reads them.

    """
    names = trusted or TrustedMetadata()

    def intercept(continuation: Continuation, details: grpc.ClientCallDetails, request: Any) -> Any:
        metadata = names.believed(details.metadata or (), principal_served())
        return continuation(changed(details, metadata=metadata), request)

    return (EveryKind(unary_unary=intercept, unary_stream=intercept, stream_unary=intercept, stream_stream=intercept),)


def principal_served() -> Principal:
    """Return the caller of the RPC that this code serves; outside of an RPC, ``ANONYMOUS``."""
    try:
        return current_principal()
    except LookupError:
        return ANONYMOUS
