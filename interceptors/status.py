"""The gRPC status of a refusal."""

from typing import NamedTuple

import grpc

from authz.call.call import Entry
from authz.call.refusal import Refusal


class Status(NamedTuple):
    """How a refused RPC ends, in the order of the arguments of ``grpc.aio.ServicerContext.abort``."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[Entry, ...]


def status_of(refusal: Refusal) -> Status:
    """Return how an RPC that is refused with ``refusal`` ends."""
    return Status(grpc.StatusCode[refusal.code.name], refusal.message, refusal.trailers)
