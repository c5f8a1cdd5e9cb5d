"""A door of one's own, for what this package has none for: here the HTTP server of Python's standard library.

Run ``authz issuer`` beside it, or set AUTHZ_ISSUER and AUTHZ_AUDIENCE for WorkOS.
"""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from authz import Authorizer, Call, Hearing, Verifier
from authz.http.forms import Form
from authz.http.headers import refusal_answer
from authz.http.paths import path_of

ISSUER = os.environ.get("AUTHZ_ISSUER", "http://127.0.0.1:9190")
AUDIENCE = os.environ.get("AUTHZ_AUDIENCE", "client_01JYENV0000000000000000000")
HOST, PORT = os.environ.get("LISTEN", "127.0.0.1:8000").rsplit(":", 1)

judge = Authorizer(Verifier(issuer=ISSUER, audience=AUDIENCE), public_methods=["/healthz"])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        metadata = [(name.lower(), value) for name, value in self.headers.items()]
        path = urlsplit(self.path).path
        # 1. The call, and its hearing, which takes the time.
        hearing = Hearing(judge, Call(path, metadata, verb=self.command), "other")
        try:
            # 2. The verdict on the path in the one spelling that rules compare.
            hearing.call = hearing.call._replace(method=path_of(unquote(path)))
            principal = hearing.decide()
        except Exception as error:  # noqa: BLE001 - whatever happened, the call is refused
            # 3. A refusal: logged, told to the observers, and written for the caller.
            status, headers, body = refusal_answer(hearing.refused(error), Form.HTTP)
        else:
            # 4. Allowed: told to the observers, and the handler sees nothing that the caller has forged.
            hearing.allowed(hearing.seconds)
            seen = dict(judge.trusted.believed(metadata, principal))
            status, headers, body = 200, (), json.dumps({"org_id": seen.get("x-org-id")}).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name.decode(), value.decode())
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer((HOST, int(PORT)), Handler).serve_forever()
