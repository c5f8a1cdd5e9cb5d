"""What a call says when it comes, and what is told instead: details, and contexts with the trusted metadata.

Replacing ``handler_call_details`` changes nothing that a handler sees, so the
context is wrapped. Every public name is forwarded by hand, because the base
classes define some methods that raise ``NotImplementedError``, and for those
Python does not call ``__getattr__``. That forwards the names that a later
grpcio adds.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import grpc
import grpc.aio

from authz.call.call import MAX_ENTRIES, Call
from authz.call.metadata import TrustedMetadata
from authz.call.principal import Principal

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


def arrived(details: grpc.HandlerCallDetails, trusted: TrustedMetadata) -> Call:
    """Return the call of ``details``, with what the judge looks for in usual metadata."""
    method, metadata = details.method, details.invocation_metadata
    try:
        # Where there are too many entries the judge refuses the call, and looks at none.
        glance = trusted.glance(metadata) if len(metadata) <= MAX_ENTRIES else None
    except Exception:  # noqa: BLE001 - another interceptor has made it: the judge meets the same error, and can refuse
        glance = None
    if glance is None:
        return Call(method, metadata)
    credentials, size = glance
    # The constructor of a named tuple is a function in Python.
    return tuple.__new__(Call, (method, metadata, None, credentials, None, None, size, "POST"))


def shown(call: Call, principal: Principal, trusted: TrustedMetadata) -> Metadata:
    """Return the metadata that the handler of ``call`` is shown."""
    if call.size is None:
        return trusted.believed(call.metadata, principal)
    # Looked through when it came: there is nothing to remove.
    return (*call.metadata, *trusted.entries(principal))


class _CallDetails(NamedTuple):
    method: str
    invocation_metadata: Metadata


class TrustedCallDetails(_CallDetails, grpc.HandlerCallDetails):
    """The details that inner interceptors and generic handlers get, shaped like grpc's own, with trusted metadata."""


def told(method: str, metadata: Metadata) -> TrustedCallDetails:
    """Return the details of a call of ``method`` that is told with ``metadata``."""
    # As above.
    return tuple.__new__(TrustedCallDetails, (method, metadata))


class _Trusted:
    """A wrapped context, with the metadata that is shown instead of its own."""

    __slots__ = ("_context", "_metadata")

    def __init__(self, context: Any, metadata: Metadata) -> None:
        self._context = context
        self._metadata = metadata

    def invocation_metadata(self) -> Metadata:
        """Return the caller's metadata without its entries under trusted names, and then the trusted entries."""
        return self._metadata

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


# As Any, because mypy takes the forwarded names for abstract.
_Context: Any = grpc.ServicerContext
_AioContext: Any = grpc.aio.ServicerContext


@_forward(*_SYNC)
class TrustedContext(_Trusted, _Context):  # type: ignore[misc]
    """A ``grpc.ServicerContext`` with trusted metadata."""

    __slots__ = ()


@_forward(*_AIO)
class TrustedAioContext(_Trusted, _AioContext):  # type: ignore[misc]
    """A ``grpc.aio.ServicerContext`` with trusted metadata."""

    __slots__ = ()


class TrustedSyncContextOnAio(_Trusted):
    """The context of synchronous handlers on an aio server, with trusted metadata.

    grpc gives them a context of a third class, which has fewer names; this one has the same names.
    """
