"""Interceptors for ``grpc.aio`` servers and channels; those for ``grpc`` are in :mod:`interceptors`."""

from interceptors.aio.client import bearer_interceptors
from interceptors.aio.forwarding import forward_principal_interceptors
from interceptors.aio.server import AuthzInterceptor

__all__ = ["AuthzInterceptor", "bearer_interceptors", "forward_principal_interceptors"]
