"""Interceptors for ``grpc`` servers and channels; those for ``grpc.aio`` are in :mod:`interceptors.aio`.

Every name is imported when it is first used (PEP 562), so that a client does not load what decides calls.

PYTEST_DONT_REWRITE, because a program may import this before pytest finds the plugin (:mod:`authz.testing.plugin`).
"""

import typing

if typing.TYPE_CHECKING:
    from .client import bearer_interceptors
    from .forwarding import forward_principal_interceptors
    from .server import AuthzInterceptor

__all__ = ["AuthzInterceptor", "bearer_interceptors", "forward_principal_interceptors"]

if not typing.TYPE_CHECKING:
    try:
        from authz import _lazy_names
    except ImportError:
        from grpc_org_authz.shadowing import explained as _explained

        raise _explained("authz") from None
    __getattr__, __dir__ = _lazy_names(
        __name__,
        {
            ".client": ("bearer_interceptors",),
            ".forwarding": ("forward_principal_interceptors",),
            ".server": ("AuthzInterceptor",),
        },
    )
