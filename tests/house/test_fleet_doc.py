"""What docs/fleet.md says in its first five minutes was really typed, and answered so."""

import getpass
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from authz import Authorizer, SharedState, Verifier
from authz.demo.issuer.program import IssuerServer
from interceptors import AuthzInterceptor
from tests.doubles import eventually
from tests.programs import PATIENCE, environment
from tests.store.engines import Engine, binary, free_port

DOCUMENT = (Path(__file__).parents[2] / "docs/fleet.md").read_text(encoding="utf-8")
FIRST_MINUTES = DOCUMENT.partition("## From one to three")[2].partition("\n## ")[0]
ISSUER = "http://127.0.0.1:9190"


class Typing:
    """A shell in which the lines of a document are typed, with addresses of this run in place of the document's."""

    def __init__(self, folder: Path, ending: ExitStack, changes: dict[str, str]) -> None:
        self._folder, self._ending, self._changes = folder, ending, changes
        self._variables: dict[str, str] = {"PATH": f"{folder}:{os.environ['PATH']}"}

    def type(self, line: str) -> str:
        """Return what is answered; nothing where the program goes on in the background."""
        line = line.partition("  #")[0].strip()
        for theirs, ours in self._changes.items():
            line = line.replace(theirs, ours)
        if line.startswith("export "):
            self._variables |= dict(word.split("=", 1) for word in shlex.split(line)[1:])
            return ""
        options: dict[str, Any] = {"cwd": self._folder, "env": environment(self._variables)}
        if line.endswith("&"):
            program = subprocess.Popen(shlex.split(line)[:-1], **options, stderr=subprocess.DEVNULL)
            self._ending.callback(program.wait)
            self._ending.callback(program.terminate)
            return ""
        done = subprocess.run(
            shlex.split(line), **options, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), line
        return done.stdout


@pytest.fixture
def typing(tmp_path: Path) -> Iterator[Typing]:
    with ExitStack() as ending, IssuerServer() as issuer:
        (tmp_path / "valkey-server").symlink_to(binary("valkey"))
        (tmp_path / "authz").write_text(f'#!/bin/sh\nexec {sys.executable} -m authz "$@"\n')
        (tmp_path / "authz").chmod(0o700)
        changes = {f"127.0.0.1:{port}": f"127.0.0.1:{free_port()}" for port in (9191, 9193, 9195)}
        store = str(free_port())
        yield Typing(tmp_path, ending, {ISSUER: issuer.url, **changes, "6379": store})


def told(text: str) -> list[str]:
    """Return the lines of an answer, without what is different each time."""
    names = {socket.gethostname(): "HOST", "web1": "HOST", getpass.getuser(): "USER", "alice": "USER"}
    for name, word in names.items():
        text = re.sub(rf"\b{re.escape(name)}\b", word, text)
    text = re.sub(r"\b[0-9a-f]{12}-\d+$", "ID", text, flags=re.MULTILINE)
    return [" ".join(re.sub(r"\d+", "N", line).split()) for line in text.splitlines()]


def are_ready(replicas: list[str]) -> bool:
    return len(replicas) == 3 and all(json.loads(replica)["keys_age"] is not None for replica in replicas)


def test_three_replicas_obey_one_order(typing: Typing) -> None:
    [block] = re.findall(r"```console\n(.*?)```", FIRST_MINUTES, re.DOTALL)
    steps = re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", block, re.MULTILINE)
    assert steps[0][0].startswith("pip install ")
    for command, answer in steps[1:]:
        if command == "authz replicas":
            # A reader is not so fast.
            assert eventually(lambda: are_ready(typing.type("authz replicas --json").splitlines()))
        assert told(typing.type(command)) == told(answer), command


def test_program_in_python_is_a_replica() -> None:
    [program] = re.findall(r"```python\n(.*?)```", FIRST_MINUTES, re.DOTALL)
    served: list[AuthzInterceptor] = []
    names = {"Authorizer": Authorizer, "AuthzInterceptor": AuthzInterceptor, "SharedState": SharedState}
    with IssuerServer() as issuer, Engine("valkey") as engine:
        verifier = Verifier(issuer=issuer.url, audience="client_1")
        try:
            exec(  # noqa: S102 - of our own document
                program.replace("redis://127.0.0.1:6379", engine.url),
                {**names, "verifier": verifier, "policy": None, "serve": served.append},
            )
        finally:
            verifier.close()

    assert len(served) == 1
