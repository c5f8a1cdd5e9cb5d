"""Interceptors for ``grpc.aio`` servers; those for ``grpc`` are in :mod:`interceptors`."""

from interceptors.aio.server import AuthzInterceptor

__all__ = ["AuthzInterceptor"]
