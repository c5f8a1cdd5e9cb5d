"""A Django project, for WSGI and for ASGI; it is configured by importing it, once in a process."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import include, re_path

from authz import current_principal
from tests.doubles import PATIENCE

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="of tests")
django.setup()

WSGI, ASGI = WSGIHandler(), ASGIHandler()

released = threading.Semaphore(0)
"""Lets an open stream go on, by one part each."""


def private(_request: HttpRequest, **_: Any) -> HttpResponse:
    return HttpResponse("private")


def other(_request: HttpRequest, path: str) -> HttpResponse:
    return HttpResponse(f"other {path}")


def caller(request: HttpRequest) -> JsonResponse:
    return JsonResponse(
        {
            "variables": {name: value for name, value in request.META.items() if name.startswith("HTTP_")},
            "current": current_principal().org_id,
            "thread": threading.get_ident(),
        }
    )


async def caller_of_coroutine(request: Any) -> JsonResponse:
    told = request.scope["state"]["principal"] if hasattr(request, "scope") else request.META["authz.principal"]
    return JsonResponse(
        {"told": told.org_id, "current": current_principal().org_id, "thread": threading.get_ident()},
    )


def parts(_request: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        while True:
            yield f"{current_principal().org_id}\n"
            released.acquire(timeout=PATIENCE)

    return StreamingHttpResponse(parts())


async def silent(_request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        yield f"{current_principal().org_id}\n"
        await asyncio.get_running_loop().create_future()

    return StreamingHttpResponse(parts())


_routes = [
    re_path(r"^private$", private),
    re_path(r"^private/(?P<path>.*)$", private),
    re_path(r"^(?P<path>.*)$", other),
]
urlpatterns = [
    re_path(r"^caller$", caller),
    re_path(r"^coroutine$", caller_of_coroutine),
    re_path(r"^parts$", parts),
    re_path(r"^silent$", silent),
    re_path(r"^v1/", include(_routes)),
    *_routes,
]
