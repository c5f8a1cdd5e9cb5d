"""A second way to ``interceptors``, for programs that have a folder of that name themselves.

    from grpc_org_authz.interceptors import AuthzInterceptor        # instead of interceptors
    from grpc_org_authz.interceptors.aio import AuthzInterceptor    # instead of interceptors.aio

Every name is the same object there as here. There is no such way to ``authz``: importing this package where another
``authz`` is imported in its place is an error that names its file.

PYTEST_DONT_REWRITE, because a program may import this before pytest finds the plugin (:mod:`authz.testing.plugin`).
"""

import typing

if not typing.TYPE_CHECKING:
    try:
        from authz import _lazy_names  # noqa: F401 - which only ours has
    except ImportError:
        from grpc_org_authz.shadowing import explained

        raise explained("authz") from None
