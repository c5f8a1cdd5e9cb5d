"""The door in an ASGI application: Starlette, FastAPI, Litestar, Quart, Django, and whatever else speaks ASGI."""

from authz.asgi.middleware import AuthzMiddleware

__all__ = ["AuthzMiddleware"]
