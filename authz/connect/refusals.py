"""Refusals as connectrpc sends them, in the protocol of the caller."""

import functools

from connectrpc.code import Code
from connectrpc.errors import ConnectError, ErrorDetail
from google.rpc.status_pb2 import Status
from protobuf.wkt import Any

from authz.call.refusal import Refusal
from authz.connect.requests import Context

_GRPC = "application/grpc"
_DETAILS = "grpc-status-details-bin"


class RefusedError(ConnectError):
    """An RPC that is refused, or must end."""


def refused(ctx: Context, refusal: Refusal, *, has_begun: bool = False) -> RefusedError:
    """Return what ends an RPC with a refusal, and note what its caller sees beside that.

    Args:
        ctx: the context of the RPC.
        refusal: why.
        has_begun: whether the headers of the response have been sent already.

    """
    if ctx.request_headers.get("content-type", "").startswith(_GRPC):
        # connectrpc makes the details of those of the error.
        entries, metadata = [entry for entry in refusal.trailers if entry.key != _DETAILS], ctx.response_trailers
    else:
        entries, metadata = list(refusal.headers), ctx.response_trailers if has_begun else ctx.response_headers
    for entry in entries:
        metadata[entry.key] = str(entry.value)
    return RefusedError(Code[refusal.code.name], refusal.message, _details(refusal.details))


# There are few reasons, and a caller that is refused may ask often.
@functools.lru_cache(512)
def _details(status: bytes) -> tuple[ErrorDetail, ...]:
    return tuple(
        ErrorDetail(Any(type_url=detail.type_url, value=detail.value)) for detail in Status.FromString(status).details
    )
