"""In which format figures are told, what that format asks of them, and the figures of processes."""

import os
import subprocess
import sys
from collections.abc import Mapping

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as plain_families

from authz.judge.authorizer import Authorizer
from authz.server.operations.exposition import OPEN_METRICS, PLAIN, Format, format_for
from authz.server.operations.metrics import Metrics, SharedMetrics
from authz.server.operations.process_figures import ProcessFigures
from tests.decisions.samples import decision

# What Prometheus 3 sends.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/html,*/*;q=0.8", PLAIN),
        ("text/plain", PLAIN),
        (PROMETHEUS, OPEN_METRICS),
        ("application/openmetrics-text", OPEN_METRICS),
        ("Application/OpenMetrics-Text ; Version=1.0.0", OPEN_METRICS),
        ("text/plain;q=0.5, application/openmetrics-text;q=0.5", OPEN_METRICS),
        ("text/plain, application/openmetrics-text;q=0.5", PLAIN),
        ("application/openmetrics-text;q=0", PLAIN),
        ("application/openmetrics-text;version=2.0.0", PLAIN),
        ("application/openmetrics-text;version=", PLAIN),
        ("application/openmetrics-text;q=much", PLAIN),
        ("application/openmetrics-text;q=nan", PLAIN),
        (";;=,,", PLAIN),
    ],
)
def test_client_gets_the_format_that_it_likes_best(accept: str, form: Format) -> None:
    assert format_for(accept) is form


def values(families: object) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families  # type: ignore[attr-defined]
        for sample in family.samples
        if not sample.name.startswith("process_")
    }


def test_both_formats_tell_the_same(authorizer: Authorizer) -> None:
    """That parser of OpenMetrics is strict: it takes no name twice, no suffix that is another's, and wants an end."""
    metrics = Metrics(engine="grpcio", organizations=1)
    metrics(decision())
    metrics.usage(decision())
    metrics.refresh(authorizer, is_ready=True, pending=0)

    opened = metrics.text(OPEN_METRICS).decode()
    assert values(text_string_to_metric_families(opened)) == values(plain_families(metrics.text().decode()))
    assert opened.endswith("# EOF\n")
    assert "_created" not in opened


_WORKER = """
import sys
from authz.server.operations.metrics import Metrics
from tests.decisions.samples import decision
metrics = Metrics(engine="grpcio", worker=int(sys.argv[1]))
metrics(decision())
metrics._count_decisions()
"""


def test_figures_of_workers_are_told_in_openmetrics_too() -> None:
    with SharedMetrics() as shared:
        for worker in ("0", "1"):
            command = [sys.executable, "-c", _WORKER, worker]
            subprocess.run(command, check=True, env={**os.environ, **shared.variables}, timeout=120)
        counts = {"running": 2, "restarts": 0, "hangs": 0}
        opened, plain = shared.text(OPEN_METRICS, **counts).decode(), shared.text(**counts).decode()

    found = values(text_string_to_metric_families(opened))
    assert found == values(plain_families(plain))
    assert found["authz_checks_total", frozenset({("verdict", "allowed"), ("reason", "")})] == 2
    assert "_created" not in opened


def of_processes(processes: Mapping[str, int | str]) -> dict[str, dict[str, float]]:
    registry = CollectorRegistry()
    registry.register(ProcessFigures(lambda: processes))
    return {
        family.name: {sample.labels["worker"]: sample.value for sample in family.samples}
        for family in registry.collect()
    }


def test_each_process_has_figures_of_its_own() -> None:
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        told = of_processes({"supervisor": os.getpid(), "0": child.pid})
        child.communicate()

    assert set(told) == {
        "process_cpu_seconds",
        "process_max_fds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_virtual_memory_bytes",
    }
    assert {name for name, each in told.items() if set(each) != {"supervisor", "0"}} == set()
    memory = told["process_resident_memory_bytes"]
    assert memory["supervisor"] > memory["0"] > 1_000_000


def test_process_that_has_ended_is_missing_and_hides_no_other() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait(120)
    told = of_processes({"0": ended.pid, "1": "self"})

    assert {name: set(each) for name, each in told.items()} == {name: {"1"} for name in told}
    assert "process_open_fds" in told
