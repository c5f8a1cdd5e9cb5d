"""Interceptors for ``grpc`` servers and channels; those for ``grpc.aio`` are in :mod:`interceptors.aio`.

Every name is imported when it is first used (PEP 562), so that a client does not load what decides calls.

PYTEST_DONT_REWRITE, because a program may import this before pytest finds the plugin (:mod:`authz.testing.plugin`).
"""

import typing

from authz.lazy import lazy_names as _lazy_names

if typing.TYPE_CHECKING:
    from interceptors.client import bearer_interceptors
    from interceptors.forwarding import forward_principal_interceptors
    from interceptors.server import AuthzInterceptor

__all__ = ["AuthzInterceptor", "bearer_interceptors", "forward_principal_interceptors"]

if not typing.TYPE_CHECKING:
    __getattr__, __dir__ = _lazy_names(
        __name__,
        {
            ".client": ("bearer_interceptors",),
            ".forwarding": ("forward_principal_interceptors",),
            ".server": ("AuthzInterceptor",),
        },
    )
