"""Interceptors for ``grpc.aio`` servers and channels; those for ``grpc`` are in :mod:`interceptors`.

Every name is imported when it is first used (PEP 562), so that a client does not load what decides calls.
"""

import typing

if typing.TYPE_CHECKING:
    from .client import bearer_interceptors
    from .forwarding import forward_principal_interceptors
    from .server import AuthzInterceptor

__all__ = ["AuthzInterceptor", "bearer_interceptors", "forward_principal_interceptors"]

if not typing.TYPE_CHECKING:
    from authz.lazy import lazy_names as _lazy_names

    __getattr__, __dir__ = _lazy_names(
        __name__,
        {
            ".client": ("bearer_interceptors",),
            ".forwarding": ("forward_principal_interceptors",),
            ".server": ("AuthzInterceptor",),
        },
    )
