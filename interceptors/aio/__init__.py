"""Interceptors for ``grpc.aio`` servers and channels; those for ``grpc`` are in :mod:`interceptors`.

Every name is imported when it is first used (PEP 562), so that a client does not load what decides calls.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from interceptors.aio.client import bearer_interceptors
    from interceptors.aio.forwarding import forward_principal_interceptors
    from interceptors.aio.server import AuthzInterceptor

__all__ = ["AuthzInterceptor", "bearer_interceptors", "forward_principal_interceptors"]

_MODULES = {
    "AuthzInterceptor": "interceptors.aio.server",
    "bearer_interceptors": "interceptors.aio.client",
    "forward_principal_interceptors": "interceptors.aio.forwarding",
}


def __getattr__(name: str) -> typing.Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def __dir__() -> list[str]:
    return __all__
