"""Prometheus is told totals of usage, and only if asked for the largest callers, within a bound."""

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from authz.call.principal import ANONYMOUS
from authz.decisions.usage import OTHER, Usage
from authz.errors import PermissionDeniedError
from authz.server.operations.usage_figures import UsageFigures
from authz.store.connection import Store
from authz.store.usage.writer import UsageWriter
from tests.decisions.samples import ACME, decision


def of(organization: str):
    return decision(principal=replace(ACME, org_id=organization))


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def checks(registry: CollectorRegistry, organization: str, verdict: str = "allowed") -> float | None:
    return registry.get_sample_value(
        "authz_organization_checks_total", {"organization": organization, "verdict": verdict}
    )


def test_the_largest_that_come_together_have_figures_and_the_calls_of_others_are_in_one(registry):
    figures = UsageFigures(registry, 2, None)
    for number, organization in enumerate(["org_a", "org_b", "org_c"], 1):
        for _ in range(number):
            figures(of(organization))
    figures(decision(PermissionDeniedError(), ANONYMOUS))
    figures.refresh()
    for _ in range(10):
        figures(of("org_a"))
    figures(of("org_b"))
    figures.refresh()

    assert [checks(registry, f"org_{name}") for name in "abc"] == [None, 3, 3]
    assert checks(registry, OTHER) == 11
    assert checks(registry, "", "denied") == 1


def test_no_organization_is_named_unless_that_is_asked_for():
    assert not UsageFigures(CollectorRegistry(), 0, None).is_wanted
    assert UsageFigures(CollectorRegistry(), 1, None).is_wanted


def test_what_is_counted_between_two_looks_is_bounded(registry, monkeypatch):
    monkeypatch.setattr("authz.server.operations.usage_figures._MAX_CALLERS", 5)
    figures = UsageFigures(registry, 100, None)
    for number in range(20):
        figures(of(f"org_{number}"))
    figures.refresh()

    assert checks(registry, OTHER) == 15


def test_what_the_store_lacks_is_told(registry):
    usage = Usage(max_rows=2)
    writer = UsageWriter(Store("unix:/nowhere"), usage)
    figures = UsageFigures(registry, 0, writer)
    for number in range(4):
        usage(decision(method=f"/a.B/{number}"))
    writer.flush()
    for _ in range(2):
        figures.refresh()
    told = {name: registry.get_sample_value(f"authz_usage_{name}") for name in ("unsent", "failing", "coarser_total")}

    assert told == {"unsent": 4, "failing": 1, "coarser_total": 3}
