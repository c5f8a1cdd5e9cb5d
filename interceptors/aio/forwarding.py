"""The verified caller of the RPC that is being served, passed on to the next service by a ``grpc.aio`` channel."""

from typing import Any

import grpc.aio

from authz.call.metadata import TrustedMetadata

from ..forwarding import principal_served
from .kinds import Continuation, changed, every_kind


def forward_principal_interceptors(*, trusted: TrustedMetadata | None = None) -> tuple[grpc.aio.ClientInterceptor, ...]:
    """Return interceptors that tell the next service who calls this one.

    See :func:`interceptors.forward_principal_interceptors`. For the ``interceptors`` of ``grpc.aio.secure_channel``.

    Args:
        trusted: the names of the metadata, as the next service reads them.

    """
    names = trusted or TrustedMetadata()

    async def intercept(continuation: Continuation, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        metadata = names.believed(details.metadata or (), principal_served())
        return await continuation(changed(details, metadata=metadata), request)

    return every_kind(unary_unary=intercept, unary_stream=intercept, stream_unary=intercept, stream_stream=intercept)
