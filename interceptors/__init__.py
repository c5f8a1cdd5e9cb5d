"""Interceptors for ``grpc`` servers; those for ``grpc.aio`` are in :mod:`interceptors.aio`."""

from interceptors.server import AuthzInterceptor

__all__ = ["AuthzInterceptor"]
