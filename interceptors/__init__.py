"""Interceptors for ``grpc`` servers and channels; those for ``grpc.aio`` are in :mod:`interceptors.aio`."""

from interceptors.client import bearer_interceptors
from interceptors.forwarding import forward_principal_interceptors
from interceptors.server import AuthzInterceptor

__all__ = ["AuthzInterceptor", "bearer_interceptors", "forward_principal_interceptors"]
