from collections.abc import Iterator
from typing import Any

import pytest

from tests.store.engines import KINDS, Engine


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Return an empty store of each kind that lives as long as the test."""
    with Engine(request.param) as engine:
        yield engine


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [one for outcome in ("passed", "failed") for one in terminalreporter.getreports(outcome)]
    told = [(one.nodeid, dict(one.user_properties)) for one in reports if "tests/store/" in one.nodeid]
    if any(figures for _, figures in told):
        terminalreporter.section("orders and places of replicas")
    for name, figures in told:
        if not figures:
            continue
        terminalreporter.line(f"{name.rpartition('::')[2]}: {figures}")
