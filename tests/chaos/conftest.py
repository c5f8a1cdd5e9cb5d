import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from authz.demo.issuer.signing import SigningKey
from tests.chaos.load import Load
from tests.doubles import jwks, m2m_claims


@pytest.fixture(scope="session")
def rounds() -> int:
    """Return how often each evil is done: once, or as often as ``make chaos`` wants."""
    return int(os.environ.get("CHAOS_ROUNDS", "1"))


@pytest.fixture
def token(ec_key: SigningKey) -> str:
    return ec_key.sign(m2m_claims(time.time(), exp=int(time.time()) + 3600))


@pytest.fixture
def keys(tmp_path: Path, ec_key: SigningKey) -> tuple[str, ...]:
    """Return the flags for keys that never change."""
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    return ("--jwks", "jwks.json")


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[[Load], None]:
    """Return a function that has what came of a load printed at the end."""
    return lambda load: record_property("answers", dict(sorted(load.counts.items())))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [one for outcome in ("passed", "failed") for one in terminalreporter.getreports(outcome)]
    told = [(one.nodeid, dict(one.user_properties)) for one in reports]
    answers = [(name, properties["answers"]) for name, properties in told if "answers" in properties]
    if answers:
        terminalreporter.section("answers by HTTP status")
    for name, counts in answers:
        terminalreporter.line(f"{name.rpartition('::')[2]}: {counts}")
