"""The door in services of ``connectrpc``, which speak Connect, gRPC and gRPC-Web; and tokens for its clients.

Every name is imported when it is first used (PEP 562), so that a client does not load what decides calls.
"""

import importlib
import typing

from authz.runtime.configuration import extra as _extra

with _extra("connect", "authz.connect needs the extra 'connect'", package="connectrpc", error=ImportError):
    import connectrpc as _connectrpc  # noqa: F401 - so that a missing package is told of here

if typing.TYPE_CHECKING:
    from authz.connect.client import bearer_interceptors, bearer_interceptors_sync
    from authz.connect.server import interceptors
    from authz.connect.server_sync import interceptors_sync

__all__ = ["bearer_interceptors", "bearer_interceptors_sync", "interceptors", "interceptors_sync"]

_MODULES = {
    "bearer_interceptors": "authz.connect.client",
    "bearer_interceptors_sync": "authz.connect.client",
    "interceptors": "authz.connect.server",
    "interceptors_sync": "authz.connect.server_sync",
}


def __getattr__(name: str) -> typing.Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def __dir__() -> list[str]:
    return __all__
