"""Try an installed wheel: applications for HTTP as a newcomer copies them from the examples.

Run it with the interpreter that has the wheel and the frameworks, in a folder that holds the examples, anywhere but in
the checkout.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from authz import ClientCredentials

AUTHZ = Path(sys.executable).with_name("authz")
PATIENCE = 120.0
APPLICATIONS = ("fastapi_app.py", "flask_app.py", "django_app.py", "own_door.py")
ACME = "org_01JYACME000000000000000001"


def main() -> None:
    address = f"127.0.0.1:{free_port()}"
    url = f"http://{address}"
    with running(AUTHZ, "issuer", "--listen", address):
        await_listening(address)
        source = ClientCredentials(
            url, client_id="client_01JYACME000000000000000002", client_secret="acme-development-secret"
        )
        token = {"authorization": f"Bearer {source.token()}", "x-org-id": "org_FORGED", "x_org_id": "org_FORGED"}
        for name in APPLICATIONS:
            listen = f"127.0.0.1:{free_port()}"
            with running(sys.executable, name, AUTHZ_ISSUER=url, LISTEN=listen):
                await_listening(listen)
                check(f"{name}: no token", answer(listen, {}) == (401, "No token provided"))
                bad = {"authorization": "Bearer a.b.c"}
                check(f"{name}: a bad token", answer(listen, bad) == (401, "Invalid token"))
                check(f"{name}: a good token", answer(listen, token) == (200, ACME))
                check(f"{name}: a public path", status(listen, "/healthz") == 200)


@contextmanager
def running(*command: str | Path, **environment: str) -> Iterator[None]:
    with subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def free_port() -> int:
    """Return a port of the loopback that is free, and that no connection gets for itself meanwhile."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def await_listening(address: str) -> None:
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with socket.socket() as client:
            if client.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.05)
    check(f"something listens on {address}", holds=False)


def answer(listen: str, headers: Mapping[str, str]) -> tuple[int, str]:
    """Return the status of a request, and the organization or the words of the refusal."""
    request = urllib.request.Request(f"http://{listen}/orders", headers=dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return response.status, json.load(response)["org_id"]
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["error"]


def status(listen: str, path: str) -> int:
    with urllib.request.urlopen(f"http://{listen}{path}", timeout=PATIENCE) as response:
        return int(response.status)


def check(what: str, holds: object) -> None:
    print("ok  " if holds else "FAIL", what, flush=True)
    if not holds:
        sys.exit(1)


if __name__ == "__main__":
    main()
