"""Orders on Flask: every route needs a token, and one streams until its token ends.

Run ``authz issuer`` beside it, or set AUTHZ_ISSUER and AUTHZ_AUDIENCE for WorkOS. Any server for WSGI will do, such as
``gunicorn --threads 8 flask_app:app``.
"""

import os
import time
from collections.abc import Iterator

import waitress
from flask import Flask, Response, request

from authz import Verifier, current_principal
from authz.wsgi import AuthzMiddleware

ISSUER = os.environ.get("AUTHZ_ISSUER", "http://127.0.0.1:9190")
AUDIENCE = os.environ.get("AUTHZ_AUDIENCE", "client_01JYENV0000000000000000000")
LISTEN = os.environ.get("LISTEN", "127.0.0.1:8000")

app = Flask(__name__)
verifier = Verifier(issuer=ISSUER, audience=AUDIENCE)
app.wsgi_app = AuthzMiddleware(app.wsgi_app, verifier, public_paths=["/healthz"])  # type: ignore[method-assign]


@app.get("/healthz")
def healthz() -> dict[str, bool]:
    return {"healthy": True}


@app.get("/orders")
def list_orders() -> dict[str, str]:
    # The header is the door's, whatever the caller has sent under its name.
    return {"org_id": current_principal().org_id, "client_id": request.headers["x-client-id"]}


@app.get("/orders/events")
def events() -> Response:
    def ticks() -> Iterator[str]:
        while True:
            yield f"data: {current_principal().org_id}\n\n"
            time.sleep(1)

    return Response(ticks(), mimetype="text/event-stream")


if __name__ == "__main__":
    waitress.serve(app, listen=LISTEN)
