"""Interceptors for ``grpc`` servers and channels; those for ``grpc.aio`` are in :mod:`interceptors.aio`.

Every name is imported when it is first used (PEP 562), so that a client does not load what decides calls.

PYTEST_DONT_REWRITE, because a program may import this before pytest finds the plugin (:mod:`authz.testing.plugin`).
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from interceptors.client import bearer_interceptors
    from interceptors.forwarding import forward_principal_interceptors
    from interceptors.server import AuthzInterceptor

__all__ = ["AuthzInterceptor", "bearer_interceptors", "forward_principal_interceptors"]

_MODULES = {
    "AuthzInterceptor": "interceptors.server",
    "bearer_interceptors": "interceptors.client",
    "forward_principal_interceptors": "interceptors.forwarding",
}


def __getattr__(name: str) -> typing.Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def __dir__() -> list[str]:
    return __all__
