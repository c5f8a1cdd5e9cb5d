"""The door in services of ``connectrpc``, which speak Connect, gRPC and gRPC-Web; and tokens for its clients.

Every name is imported when it is first used (PEP 562), so that a client does not load what decides calls.
"""

import typing

from authz.lazy import lazy_names as _lazy_names
from authz.runtime.configuration import extra as _extra

with _extra("connect", "authz.connect needs the extra 'connect'", package="connectrpc", error=ImportError):
    import connectrpc as _connectrpc  # noqa: F401 - so that a missing package is told of here

if typing.TYPE_CHECKING:
    from authz.connect.client import bearer_interceptors, bearer_interceptors_sync
    from authz.connect.server import interceptors
    from authz.connect.server_sync import interceptors_sync

__all__ = ["bearer_interceptors", "bearer_interceptors_sync", "interceptors", "interceptors_sync"]

if not typing.TYPE_CHECKING:
    __getattr__, __dir__ = _lazy_names(
        __name__,
        {
            ".client": (
                "bearer_interceptors",
                "bearer_interceptors_sync",
            ),
            ".server": ("interceptors",),
            ".server_sync": ("interceptors_sync",),
        },
    )
