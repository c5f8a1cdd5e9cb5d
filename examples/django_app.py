"""Orders on Django, in one file: every view needs a token, and one streams until its token ends.

Run ``authz issuer`` beside it, or set AUTHZ_ISSUER and AUTHZ_AUDIENCE for WorkOS. Any server for WSGI will do, such as
``gunicorn --threads 8 django_app:application``; in a project of more files, the last lines belong to its ``wsgi.py``.
"""

import os
import time
from collections.abc import Iterator

import waitress
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import path

from authz import Verifier, current_principal
from authz.wsgi import AuthzMiddleware

ISSUER = os.environ.get("AUTHZ_ISSUER", "http://127.0.0.1:9190")
AUDIENCE = os.environ.get("AUTHZ_AUDIENCE", "client_01JYENV0000000000000000000")
LISTEN = os.environ.get("LISTEN", "127.0.0.1:8000")


def healthz(_request: HttpRequest) -> JsonResponse:
    return JsonResponse({"healthy": True})


def list_orders(request: HttpRequest) -> JsonResponse:
    # The header is the door's, whatever the caller has sent under its name.
    return JsonResponse({"org_id": current_principal().org_id, "client_id": request.headers["x-client-id"]})


def events(_request: HttpRequest) -> StreamingHttpResponse:
    def ticks() -> Iterator[str]:
        while True:
            yield f"data: {current_principal().org_id}\n\n"
            time.sleep(1)

    return StreamingHttpResponse(ticks(), content_type="text/event-stream")


urlpatterns = [path("healthz", healthz), path("orders", list_orders), path("orders/events", events)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"])

verifier = Verifier(issuer=ISSUER, audience=AUDIENCE)
application = AuthzMiddleware(get_wsgi_application(), verifier, public_paths=["/healthz"])

if __name__ == "__main__":
    waitress.serve(application, listen=LISTEN)
