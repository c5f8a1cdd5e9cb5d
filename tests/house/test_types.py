"""What a type checker says of programs that use this package: what is right passes, and each mistake is named."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.missing import leave_out
from tests.programs import PATIENCE

ROOT = Path(__file__).parents[2]

ORDERS = """
from authz import Authorizer

def orders(judge: Authorizer, name: str | None) -> None:
    judge.revoke(token_id="jti", issuer="https://acme.authkit.app", until=4e9)
    judge.revoke(client_id="client_1", issued_before=1e9, reason="leaked", by="ann")
    judge.revoke(org_id="org_1")
    judge.revoke(key_id="kid")
    judge.reinstate(token_id="jti", issuer="https://acme.authkit.app")
    judge.reinstate(client_id="client_1")
    judge.reinstate(org_id="org_1", reason="paid", by="ann")
    judge.reinstate(key_id="kid")
    judge.suspend(org_id="org_1", until=4e9, reason="unpaid", by="ann")
    judge.resume(org_id="org_1", reason="paid")
    judge.revoke()  # mistake
    judge.revoke(org_id="org_1", client_id="client_1")  # mistake
    judge.revoke(organization="org_1")  # mistake
    judge.revoke("org_1")  # mistake
    judge.revoke(org_id=name)  # mistake
    judge.revoke(token_id="jti", issued_before=1e9)  # mistake
    judge.reinstate()  # mistake
    judge.reinstate(key_id="kid", token_id="jti")  # mistake
    judge.suspend()  # mistake
    judge.suspend("org_1")  # mistake
    judge.suspend(client_id="client_1")  # mistake
    judge.resume(org_id=7)  # mistake
"""

DIRECTORIES = """
from authz import Directory
from authz.policy import Organization

def plain(org_id: str) -> Organization | None:
    return None

async def later(org_id: str) -> Organization:
    return Organization(tenant=org_id)

class Source:
    async def __call__(self, org_id: str) -> Organization | None:
        return None

def no_organization(org_id: str) -> str:
    return org_id

async def no_organization_later(org_id: str) -> str:
    return org_id

async def of_a_number(number: int) -> Organization:
    return Organization()

Directory(plain)
Directory(later, size=7)
Directory(Source())
Directory(lambda org_id: Organization(tenant=org_id))
Directory(no_organization)  # mistake
Directory(no_organization_later)  # mistake
Directory(of_a_number)  # mistake
"""

PROGRAMS = {"orders": ORDERS, "directories": DIRECTORIES}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[int]]:
    """Return in which lines of each of the programs mypy finds an error."""
    if find_spec("mypy") is None:
        leave_out("mypy is not installed", "make .venv/.ready")
    folder = tmp_path_factory.mktemp("types")
    for name, text in PROGRAMS.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    # A cache of its own: two of them at a time would write over each other's.
    options = ("--strict", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(folder / "cache"))
    command = [sys.executable, "-m", "mypy", *options, *(str(folder / f"{name}.py") for name in PROGRAMS)]
    told = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=5 * PATIENCE)
    assert told.returncode in {0, 1}, told.stdout + told.stderr
    errors: dict[str, set[int]] = {name: set() for name in PROGRAMS}
    for line in told.stdout.splitlines():
        if ": error: " in line:
            path, number, _ = line.split(":", 2)
            errors[Path(path).stem].add(int(number))
    return errors


@pytest.mark.process
@pytest.mark.parametrize("name", PROGRAMS)
def test_type_checker_finds_each_mistake_and_nothing_else(name: str, found: dict[str, set[int]]) -> None:
    lines = enumerate(PROGRAMS[name].splitlines(), 1)

    assert found[name] == {number for number, line in lines if line.endswith("# mistake")}
