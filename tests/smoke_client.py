"""Try the client's side of an installed wheel that has no extra: tokens, interceptors, and their second name.

Run it with the interpreter that has the wheel, in an empty folder.
"""

import importlib.util
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc

from authz import ClientCredentials, ConfigError, call_credentials
from interceptors import bearer_interceptors

# Of extras, and what only a server loads.
SERVERS = ("cyclopts", "prometheus_client", "pydantic", "redis", "starlette", "structlog", "uvicorn", "yaml")
BESIDE_ITS_OWN = """
import interceptors
from grpc_org_authz.interceptors import bearer_interceptors
from grpc_org_authz.interceptors.aio import AuthzInterceptor
print(interceptors.MINE, bearer_interceptors.__name__, AuthzInterceptor.__module__)
"""


class Issuer(BaseHTTPRequestHandler):
    """Answers every request with the same token."""

    def do_POST(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps({"access_token": "a-token", "token_type": "Bearer", "expires_in": 300}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    check("no extra is installed", [name for name in SERVERS if importlib.util.find_spec(name) is not None] == [])
    with HTTPServer(("127.0.0.1", 0), Issuer) as issuer:
        threading.Thread(target=issuer.serve_forever, daemon=True).start()
        os.environ |= {
            "AUTHZ_TOKEN_URL": f"http://127.0.0.1:{issuer.server_port}/token",
            "AUTHZ_CLIENT_ID": "partner",
            "AUTHZ_CLIENT_SECRET": "secret",
        }
        source = ClientCredentials.from_env()
        check("a token is fetched", source.token() == "a-token")
        check("gRPC takes it as call credentials", isinstance(call_credentials(source), grpc.CallCredentials))
        check("every call bears it", header_of_a_call(source) == "Bearer a-token")
        issuer.shutdown()
    try:
        ClientCredentials("http://issuer.example", client_id="a", client_secret="b")
        refused = ""
    except ConfigError as error:
        refused = str(error)
    check("an issuer without TLS is refused", "must use https" in refused)

    own = Path.cwd() / "interceptors/__init__.py"
    own.parent.mkdir()
    own.write_text("MINE = 'mine'\n", encoding="utf-8")
    shown = subprocess.run([sys.executable, "-c", BESIDE_ITS_OWN], capture_output=True, text=True, check=True).stdout
    check(
        "interceptors of a program's own stand beside",
        shown.split() == ["mine", "bearer_interceptors", "grpc_org_authz._interceptors.aio.server"],
    )


def header_of_a_call(source: ClientCredentials) -> str:
    def handle(_request: bytes, context: Any) -> bytes:
        return str(dict(context.invocation_metadata())["authorization"]).encode()

    server = grpc.server(ThreadPoolExecutor(1))
    handlers = {"Show": grpc.unary_unary_rpc_method_handler(handle)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("smoke.Smoke", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    bearer = bearer_interceptors(source, insecure_channel=True)
    with grpc.intercept_channel(grpc.insecure_channel(f"127.0.0.1:{port}"), *bearer) as channel:
        reply: bytes = channel.unary_unary("/smoke.Smoke/Show")(b"", timeout=60)
    server.stop(None)
    return reply.decode()


def check(what: str, holds: object) -> None:
    print("ok  " if holds else "FAIL", what)
    if not holds:
        sys.exit(1)


if __name__ == "__main__":
    main()
