"""The contexts that handlers get: grpc's own, but with the trusted metadata.

Replacing ``handler_call_details`` changes nothing that a handler sees, so the
context is wrapped. Every public name is forwarded by hand: in the base classes
some methods exist and raise ``NotImplementedError``, which ``__getattr__``
never gets to see. What a later grpcio adds, it does.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import grpc
import grpc.aio

Metadata = tuple[tuple[str, str | bytes], ...]

_BOTH = (
    *("abort", "abort_with_status", "auth_context", "code", "details", "disable_next_message_compression"),
    *("peer", "peer_identities", "peer_identity_key", "send_initial_metadata", "set_code", "set_compression"),
    *("set_details", "set_trailing_metadata", "time_remaining", "trailing_metadata"),
)
_SYNC = (*_BOTH, "add_callback", "cancel", "is_active")
_AIO = (*_BOTH, "add_done_callback", "cancelled", "done", "read", "write")


_Class = TypeVar("_Class", bound=type)


def _forward(*names: str) -> Callable[[_Class], _Class]:
    def decorate(cls: _Class) -> _Class:
        for name in names:
            setattr(cls, name, property(attrgetter(f"_context.{name}")))
        cls.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
        return cls

    return decorate


class _CallDetails(NamedTuple):
    method: str
    invocation_metadata: Metadata


class TrustedCallDetails(_CallDetails, grpc.HandlerCallDetails):
    """What interceptors after ours and generic handlers get, in the shape of grpc's own: details to be believed."""


class _Trusted:
    """What the proxies share: the wrapped context, and the metadata that is shown instead of its own."""

    def __init__(self, context: Any, metadata: Metadata) -> None:
        self._context = context
        self._metadata = metadata

    def invocation_metadata(self) -> Metadata:
        """Return what the caller sent, without anything it may not say, and then the trusted entries."""
        return self._metadata

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


# As Any: mypy would take the names that are forwarded for abstract.
_Context: Any = grpc.ServicerContext
_AioContext: Any = grpc.aio.ServicerContext


@_forward(*_SYNC)
class TrustedContext(_Trusted, _Context):  # type: ignore[misc]
    """A ``grpc.ServicerContext`` whose metadata can be believed."""


@_forward(*_AIO)
class TrustedAioContext(_Trusted, _AioContext):  # type: ignore[misc]
    """A ``grpc.aio.ServicerContext`` whose metadata can be believed."""


class TrustedSyncContextOnAio(_Trusted):
    """What synchronous handlers get on an aio server, with metadata that can be believed.

    grpc gives them a context of a third kind, which has fewer names; this one has the same.
    """
