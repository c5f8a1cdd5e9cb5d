"""Test credentials work in tests only; a program that is told to have them says so."""

import logging
import os
import threading
from pathlib import Path

import pytest

from authz.testing import acting_as
from tests import programs
from tests.testing.suites import PYTHON

USES = {
    "acting_as": "with acting_as('org_acme'): print('acted')",
    "decorated": "acting_as('org_acme')(print)('acted')",
    "anonymous": "with anonymous(): print('acted')",
    "verifier": "Issuer().verifier(); print('acted')",
    "token": "Issuer().token('org_acme'); print('acted')",
    "metadata": "Issuer().metadata('org_acme'); print('acted')",
    "expired": "Issuer().expired('org_acme'); print('acted')",
    "running_issuer": "with running_issuer(): print('acted')",
}
NAMES = {
    **dict.fromkeys(("decorated", "anonymous"), "acting_as"),
    **dict.fromkeys(("verifier", "token", "metadata", "expired"), "Issuer"),
}
TWICE = "from authz.testing import *\nwith acting_as('org_acme'): print('acted')\nIssuer().verifier(); print('acted')"
WARNS = "RuntimeWarning: test credentials are in force, as {} says: this program must not serve others"


def run(folder: Path, program: str, **variables: str) -> tuple[str, str]:
    done = programs.run(folder=folder, command=(*PYTHON[:1], "-c", program), **variables)
    return done.stdout, done.stderr


@pytest.mark.parametrize("use", USES)
def test_a_program_that_is_no_test_is_refused_and_told_the_ways(tmp_path: Path, use: str) -> None:
    """Although it has inherited the variables of this run of pytest."""
    assert "PYTEST_VERSION" in os.environ
    assert "PYTEST_CURRENT_TEST" in os.environ

    said, error = run(tmp_path, f"from authz.testing import *\n{USES[use]}")

    assert said == ""
    assert error.splitlines()[-1] == (
        f"RuntimeError: authz.testing.{NAMES.get(use, use)} is for tests, and neither pytest nor unittest runs this"
        " program; if it is a test of another kind, call authz.testing.allow() first, or set AUTHZ_TESTING=1"
    )


@pytest.mark.parametrize(
    "before",
    ["import pytest, _pytest.config", "import unittest.case, unittest.main", "import unittest.mock"],
    ids=["pytest", "unittest", "mock"],
)
def test_what_a_program_imports_makes_it_no_test(tmp_path: Path, before: str) -> None:
    said, error = run(tmp_path, f"{before}\nfrom authz.testing import *\n{USES['acting_as']}")

    assert (said, "RuntimeError: authz.testing.acting_as is for tests" in error) == ("", True)


def test_what_unittest_mock_calls_is_no_test(tmp_path: Path) -> None:
    program = f"""
from unittest.mock import patch
from authz.testing import *

@patch("os.sep", "/")
def main():
    {USES["acting_as"]}

main()
"""
    said, error = run(tmp_path, program)

    assert (said, "RuntimeError: authz.testing.acting_as is for tests" in error) == ("", True)


@pytest.mark.parametrize("value", ["", "0", "false", "true", "2", " 1", "1 "])
def test_no_other_value_of_the_variable_permits_anything(tmp_path: Path, value: str) -> None:
    said, error = run(tmp_path, f"from authz.testing import *\n{USES['token']}", AUTHZ_TESTING=value)

    assert (said, "RuntimeError: authz.testing.Issuer is for tests" in error) == ("", True)


LEFT_IN = """
from concurrent.futures import ThreadPoolExecutor
import grpc
from authz import current_principal
from authz.testing import acting_as

def echo(request, context):
    with acting_as("org_acme"):
        return current_principal().org_id.encode()

server = grpc.server(ThreadPoolExecutor(2))
handler = grpc.unary_unary_rpc_method_handler(echo)
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("echo", {"Echo": handler})])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    try:
        print(channel.unary_unary("/echo/Echo")(b"", timeout=120))
    except grpc.RpcError as error:
        print(error.code().name)
server.stop(None)
"""


def test_what_was_left_in_a_handler_fails_the_call(tmp_path: Path) -> None:
    said, _ = run(tmp_path, LEFT_IN)

    assert said == "UNKNOWN\n"


@pytest.mark.parametrize("way", ["AUTHZ_TESTING=1", "authz.testing.allow()"])
def test_a_program_that_is_told_to_have_them_says_so_once(tmp_path: Path, way: str) -> None:
    name, _, value = way.partition("=")
    prepared = "" if value else "import authz.testing; authz.testing.allow()\n"
    logged = "import logging; logging.basicConfig(format='%(levelname)s %(message)s')\n"

    said, error = run(tmp_path, logged + prepared + TWICE, **({name: value} if value else {}))

    assert said == "acted\nacted\n"
    # Each other line shows the line of the program.
    log = [line.partition(": ")[2] if WARNS[:10] in line else line for line in error.splitlines() if line[0] != " "]
    assert log == [f"WARNING test_credentials allowed_by='{way}'", WARNS.format(way)]


def test_a_program_without_a_log_says_so_all_the_same(tmp_path: Path) -> None:
    said, error = run(tmp_path, TWICE, AUTHZ_TESTING="1")

    assert said == "acted\nacted\n"
    assert error.count(WARNS.format("AUTHZ_TESTING=1")) == 1


def test_a_thread_of_a_test_is_in_the_test() -> None:
    seen: list[str] = []

    def thread() -> None:
        with acting_as("org_acme") as principal:
            seen.append(principal.org_id)

    started = threading.Thread(target=thread)
    started.start()
    started.join()

    assert seen == ["org_acme"]


def test_a_test_has_them_without_a_word(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Warnings are errors here, and there would be one."""
    monkeypatch.setenv("AUTHZ_TESTING", "1")
    caplog.set_level(logging.DEBUG, "authz")

    with acting_as("org_acme"):
        pass

    assert caplog.records == []


SERVERS = {
    "serve": ("-m", "authz", "serve", "--issuer", "https://a.example", "--audience", "a"),
    "verify": ("-m", "authz", "verify", "--issuer", "https://a.example", "--audience", "a", "a.b.c"),
    "Verifier.from_env": ("-c", "import authz; authz.Verifier.from_env()"),
    "Verifiers.from_env": ("-c", "import authz; authz.Verifiers.from_env()"),
}


@pytest.mark.parametrize("value", ["1", "0", "of a file"])
@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_inherits_the_variable_does_not_start(tmp_path: Path, name: str, value: str) -> None:
    (tmp_path / "settings").write_text("AUTHZ_TESTING=1\n")
    variables = {"AUTHZ_ENV_FILE": "settings"} if value == "of a file" else {"AUTHZ_TESTING": value}

    done = programs.run(*SERVERS[name], folder=tmp_path, command=PYTHON[:1], **variables)

    assert done.returncode != 0
    assert "AUTHZ_TESTING: permits test credentials, so neither servers nor commands start with it; unset it" in (
        done.stderr
    )
