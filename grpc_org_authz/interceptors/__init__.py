"""What :mod:`interceptors` has, where a program has a folder of that name itself.

PYTEST_DONT_REWRITE, because a program may import this before pytest finds the plugin (:mod:`authz.testing.plugin`).
"""

import typing

if typing.TYPE_CHECKING:
    from grpc_org_authz._interceptors import AuthzInterceptor, bearer_interceptors, forward_principal_interceptors
else:
    from grpc_org_authz.shadowing import names_of

    __getattr__, __dir__ = names_of("interceptors")

__all__ = ["AuthzInterceptor", "bearer_interceptors", "forward_principal_interceptors"]
