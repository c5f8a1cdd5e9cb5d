"""The programs of the README, and of the documents that go on from it, run; what they say of commands is true."""

import base64
import re
import runpy
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import metadata
from pathlib import Path
from typing import get_args

import grpc
import pytest
import yaml

from authz import Authorizer, Principal, TrustedMetadata
from authz.cli.program.commands import app
from authz.demo.issuer.program import IssuerServer
from authz.envoy.config import ext_authz
from authz.server.serving.server import EngineName

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
INTERCEPTORS, ENVOY, WITHDRAWN, COMMANDS = (
    (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")
    for name in ("interceptors", "envoy", "withdrawn-tokens", "commands")
)
PROGRAMS = {
    match[1]: match[0]
    for text in (README, INTERCEPTORS, ENVOY, WITHDRAWN)
    for match in re.findall(r"```python\n((?:# (\S+\.py)\n).*?)```", text, re.DOTALL)
}


@pytest.fixture(scope="module")
def issuer() -> Iterator[IssuerServer]:
    with IssuerServer() as server:
        yield server


@pytest.fixture
def programs(issuer: IssuerServer, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Write the programs, with the addresses of this run in place of the documents'."""
    with socket.socket() as reserved:
        # Bound, so that no other program is given the port meanwhile; not listening, so that grpc may use it too.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{reserved.getsockname()[1]}"
        for name, text in PROGRAMS.items():
            here = text.replace("http://127.0.0.1:9190", issuer.url).replace("127.0.0.1:50051", target)
            (tmp_path / name).write_text(here, encoding="utf-8")
        yield tmp_path, target


@contextmanager
def running(program: Path, target: str) -> Iterator[None]:
    with subprocess.Popen([sys.executable, program], cwd=program.parent) as server:
        try:
            with grpc.insecure_channel(target) as channel:
                grpc.channel_ready_future(channel).result(timeout=120)
            yield
        finally:
            server.terminate()


def test_every_program_is_named_and_so_tested() -> None:
    assert README.count("```python") == 2
    assert set(PROGRAMS) == {"server.py", "client.py", "aio_server.py", "principal.py", "assurance.py"}


def test_the_server_of_the_readme_is_that_of_the_document() -> None:
    assert re.findall(r"(?ms)^# server\.py\n.*?^```", README) == re.findall(
        r"(?ms)^# server\.py\n.*?^```", INTERCEPTORS
    )


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= 700


def test_first_code_stands_before_line_30() -> None:
    assert README[: README.index("```python")].count("\n") < 29


@pytest.mark.parametrize("server", ["server.py", "aio_server.py"])
def test_the_client_is_known_to_the_server_and_forged_metadata_is_not(programs: tuple[Path, str], server: str) -> None:
    folder, target = programs

    with running(folder / server, target):
        client = subprocess.run(
            [sys.executable, folder / "client.py"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )

    expected = re.search(r"print\(reply\.entry\.org_id\)  # (\S+)", PROGRAMS["client.py"])
    assert expected is not None
    assert (client.stdout.strip(), client.stderr) == (expected[1], "")


def test_assurance_is_an_authorizer(programs: tuple[Path, str]) -> None:
    authorizer = runpy.run_path(str(programs[0] / "assurance.py"))["authorizer"]

    assert isinstance(authorizer, Authorizer)


def test_principal_is_read_from_an_http_header(programs: tuple[Path, str]) -> None:
    principal = Principal(org_id="org_A1", client_id="client_1", subject="client_1", expires_at=1.0)
    entry = next(entry for entry in TrustedMetadata().entries(principal) if entry.key.endswith("-bin"))
    assert isinstance(entry.value, bytes)
    header = base64.b64encode(entry.value).decode().rstrip("=")

    principal_of = runpy.run_path(str(programs[0] / "principal.py"))["principal_of"]

    assert principal_of({entry.key: header}).org_id == "org_A1"


def test_envoy_filter_is_the_one_that_is_generated() -> None:
    block = re.search(r"```yaml\nhttp_filters:\n(.*?)```", ENVOY, re.DOTALL)
    assert block is not None

    assert yaml.safe_load(block[1]) == [ext_authz("authz")]


def test_every_command_is_listed() -> None:
    listed = set(re.findall(r"^\| `authz (\S+)` \|", COMMANDS, re.MULTILINE))

    assert listed == {name for name in app if not name.startswith("-")}


def test_every_extra_and_engine_that_is_named_is_there() -> None:
    extras = set(re.findall(r"grpc-org-authz\[(\w+)\]", README + ENVOY))
    engines = set(re.findall(r"--engine (\w+)", README + ENVOY))

    assert {"demo", "native"} <= extras <= set(metadata("grpc-org-authz").get_all("Provides-Extra", []))
    assert {"native"} <= engines <= set(get_args(EngineName))
