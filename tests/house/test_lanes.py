"""Every test says what it needs to run, and does with that."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lanes import LANES, LEADS_TO

ROOT = Path(__file__).parents[2]
UNIT = """
import os, pytest, socket, subprocess
@pytest.mark.unit
@pytest.mark.parametrize("start", [os.fork, lambda: subprocess.run(["true"]), lambda: socket.create_server(("", 0))])
def test_unit(start):
    start()
"""


def test_every_test_is_in_one_lane(request: pytest.FixtureRequest) -> None:
    lanes = {item.nodeid: {mark.name for mark in item.iter_markers()} & set(LANES) for item in request.session.items}

    assert {name: found for name, found in lanes.items() if len(found) != 1} == {}


@pytest.mark.parametrize("name", sorted(frozenset().union(*LEADS_TO.values())))
def test_what_a_lane_is_known_by_exists(name: str) -> None:
    found = pkgutil.resolve_name(name)

    assert f"{found.__module__}.{found.__qualname__}" == name


def test_unit_that_starts_a_server_or_a_process_fails(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "test_unit.py").write_text(UNIT)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", tmp_path, "-c", ROOT / "pyproject.toml"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)

    assert "3 failed" in done.stdout, done.stdout
    assert done.stdout.count("must not lead to") >= 3
