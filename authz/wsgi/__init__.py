"""The door in a WSGI application: Flask, Django, Pyramid, Falcon, Bottle, and whatever else speaks WSGI (PEP 3333)."""

from authz.wsgi.middleware import AuthzMiddleware

__all__ = ["AuthzMiddleware"]
