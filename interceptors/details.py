"""The details of an outgoing RPC, with changes."""

from typing import Any, NamedTuple

import grpc


class _Fields(NamedTuple):
    method: Any
    timeout: Any
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class _Details(_Fields, grpc.ClientCallDetails):
    """As grpc's own, which is not public."""


def changed(details: grpc.ClientCallDetails, **changes: Any) -> grpc.ClientCallDetails:
    """Return ``details`` with ``changes``; what other interceptors left out stays at its default."""
    return _Details(*(changes.get(name, getattr(details, name, None)) for name in _Fields._fields))
