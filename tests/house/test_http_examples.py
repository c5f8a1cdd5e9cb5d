"""The programs for HTTP, in examples and documents, run in an empty folder and do what they say."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from authz import ClientCredentials
from authz.demo.issuer.program import IssuerServer
from tests.doubles import eventually
from tests.http.client import Connection, ask, bearer

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/http.md").read_text(encoding="utf-8")
PROGRAMS = {name: text for text, name in re.findall(r"```python\n(# (\S+\.py)\n.*?)```", TEXT, re.DOTALL)}

ACME, GLOBEX = "org_01JYACME000000000000000001", "org_01JYG10BEX0000000000000001"
FORGED = [("x-org-id", "org_01JYFORGED0000000000000000"), ("x_org_id", "org_01JYFORGED0000000000000000")]


@pytest.fixture(scope="module")
def issuer() -> Iterator[IssuerServer]:
    with IssuerServer() as server:
        yield server


def token(issuer: IssuerServer, number: int = 0, scope: str | None = None) -> list[tuple[str, str]]:
    application = issuer.issuer.directory.applications[number]
    source = ClientCredentials(
        issuer.url, client_id=application.client_id, client_secret=application.client_secret, scope=scope
    )
    return bearer(source.token())


def is_listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(program: str, issuer: IssuerServer, folder: Path, *command: str) -> Iterator[int]:
    """Run a program, with the addresses of this run in place of its own, or a server of it; yield its port."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    program = program.replace("http://127.0.0.1:9190", issuer.url).replace("port=8000", f"port={port}")
    (folder / "program.py").write_text(program, encoding="utf-8")
    listen = f"127.0.0.1:{port}"
    environment = {**os.environ, "AUTHZ_ISSUER": issuer.url, "LISTEN": listen, "GUNICORN_CMD_ARGS": f"--bind={listen}"}
    with subprocess.Popen([sys.executable, *(command or ["program.py"])], cwd=folder, env=environment) as process:
        try:
            assert eventually(lambda: is_listening(port) or process.poll() is not None)
            assert process.poll() is None
            yield port
        finally:
            process.terminate()


def example(name: str) -> str:
    return (ROOT / "examples" / name).read_text(encoding="utf-8")


def test_every_program_of_the_document_is_tested() -> None:
    assert set(PROGRAMS) == {"asgi_app.py", "fastapi_app.py", "flask_app.py"}


def test_application_of_the_document_for_asgi(issuer: IssuerServer, tmp_path: Path) -> None:
    with running(PROGRAMS["asgi_app.py"], issuer, tmp_path) as port:
        assert ask(port, "/orders").body[:31].decode() in TEXT
        assert ask(port, "/orders", [*FORGED, *token(issuer)]).json == {"org_id": ACME}
        assert ask(port, "/orders/7", [*FORGED, *token(issuer, 1)]).json == {"org_id": GLOBEX, "order": "7"}
        assert ask(port, "/healthz").json == {"healthy": True}


def test_application_of_the_document_for_fastapi(issuer: IssuerServer, tmp_path: Path) -> None:
    with running(PROGRAMS["fastapi_app.py"], issuer, tmp_path) as port:
        assert ask(port, "/orders", token(issuer)).json == {"org_id": ACME}
        assert ask(port, "/orders", token(issuer, scope="ledger:write")).reason == "INSUFFICIENT_SCOPE"
        described = ask(port, "/openapi.json").json
        assert described["paths"]["/orders"]["get"]["security"] == [{"Caller": ["ledger:read"]}]


def test_example_for_fastapi(issuer: IssuerServer, tmp_path: Path) -> None:
    with running(example("fastapi_app.py"), issuer, tmp_path) as port:
        refused, listed, placed = (
            ask(port, "/orders"),
            ask(port, "/orders", [*FORGED, *token(issuer)]),
            ask(port, "/orders", [*FORGED, *token(issuer, 1)], verb="POST"),
        )
        narrow = ask(port, "/orders", token(issuer, scope="ledger:read"), verb="POST")
        with Connection(port) as events:
            events.ask("/orders/events", token(issuer))
            events.head()
            first = events.part()

    assert (refused.status, refused.json["error"]) == (401, "No token provided")
    assert (listed.json["org_id"], placed.json) == (ACME, {"org_id": GLOBEX})
    assert (narrow.status, narrow.reason) == (403, "INSUFFICIENT_SCOPE")
    assert first == f"data: {ACME}\n\n".encode()


def test_application_of_the_document_for_flask(issuer: IssuerServer, tmp_path: Path) -> None:
    with running(PROGRAMS["flask_app.py"], issuer, tmp_path) as port:
        assert ask(port, "/orders").json["error"] == "No token provided"
        assert ask(port, "/orders", [*FORGED, *token(issuer)]).json == {"org_id": ACME}
        assert ask(port, "/orders/7", [*FORGED, *token(issuer, 1)]).json == {"org_id": GLOBEX, "order": "7"}
        assert ask(port, "/healthz").json == {"healthy": True}


GUNICORN = ("-m", "gunicorn", "--no-control-socket", "--log-level", "warning")


@pytest.mark.parametrize("command", [(), GUNICORN, (*GUNICORN, "--threads", "4", "--preload")], ids=len)
@pytest.mark.parametrize("name", ["flask_app.py", "django_app.py"])
def test_example_for_wsgi(issuer: IssuerServer, tmp_path: Path, name: str, command: tuple[str, ...]) -> None:
    served = "program:app" if name == "flask_app.py" else "program:application"
    with running(example(name), issuer, tmp_path, *command, *([served] if command else [])) as port:
        refused, listed = ask(port, "/orders"), ask(port, "/orders", [*FORGED, *token(issuer)])
        healthy = ask(port, "/healthz", FORGED)
        with Connection(port) as events:
            events.ask("/orders/events", token(issuer, 1))
            events.head()
            first = events.part()

    assert (refused.status, refused.json["error"]) == (401, "No token provided")
    assert (listed.json["org_id"], healthy.json) == (ACME, {"healthy": True})
    assert first == f"data: {GLOBEX}\n\n".encode()


def test_example_of_a_door_of_ones_own(issuer: IssuerServer, tmp_path: Path) -> None:
    with running(example("own_door.py"), issuer, tmp_path) as port:
        assert ask(port, "/orders").json["error"] == "No token provided"
        assert ask(port, "/orders", [*FORGED, *token(issuer)]).json == {"org_id": ACME}
        assert ask(port, "/a/../orders", token(issuer)).reason == "REQUEST_MALFORMED"
        assert ask(port, "/healthz", FORGED).json == {"org_id": None}
