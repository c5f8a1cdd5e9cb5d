"""Alerts and dashboard ask for figures that there are, and every alert is explained."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx2
import pytest
import yaml

from authz.decisions.decision import Source, Verdict
from authz.demo.issuer.signing import SigningKey
from authz.issuer.remote_keys import STALE
from authz.judge.shadow import Change
from authz.settings.settings import Settings
from tests.doubles import AUDIENCE, ISSUER, jwks
from tests.programs import PATIENCE, Program

ROOT = Path(__file__).parents[2]

METRICS = {
    "authz_checks_total": {"verdict", "reason"},
    "authz_check_seconds_bucket": {"le"},
    "authz_check_seconds_sum": set(),
    "authz_check_seconds_count": set(),
    "authz_evidence_total": {"source"},
    "authz_pending_checks": set(),
    "authz_ready": {"worker"},
    "authz_jwks_age_seconds": {"issuer"},
    "authz_jwks_keys": {"issuer"},
    "authz_jwks_failing": {"issuer"},
    "authz_jwks_fetches_total": {"issuer", "result"},
    "authz_fetch_failures_total": {"of", "cause"},
    "authz_introspection_requests_total": {"result"},
    "authz_directory_requests_total": {"result"},
    "authz_decision_log_dropped_total": set(),
    "authz_access_log_total": {"result"},
    "authz_tokens_remembered": {"issuer"},
    "authz_token_memory_bytes": {"issuer"},
    "authz_token_memory_limit_bytes": {"issuer"},
    "authz_tokens_forgotten_total": {"issuer"},
    "authz_policy_reloads_total": {"result"},
    "authz_policy_failing": set(),
    "authz_policy_loaded_timestamp_seconds": set(),
    "authz_shadow_differences_total": {"change"},
    "authz_quota_leases_total": {"result"},
    "authz_usage_unsent": set(),
    "authz_usage_failing": set(),
    "authz_usage_coarser_total": set(),
    "authz_organization_checks_total": {"organization", "verdict"},
    "authz_memo_offered_total": set(),
    "authz_memo_flushes_total": set(),
    "authz_memo_age_seconds": set(),
    "authz_memo_envoys": set(),
    "authz_memo_refused_total": set(),
    "authz_workers": set(),
    "authz_worker_restarts_total": set(),
    "authz_worker_hangs_total": set(),
    "authz_build_info": {"version", "engine"},
    "authz_orders_in_force": {"kind"},
    "authz_orders_total": {"verb", "source", "way"},
    "authz_orders_ignored_total": set(),
    "authz_store_up": set(),
    "authz_store_age_seconds": set(),
    "authz_store_regressed_total": set(),
    "authz_source_up": {"source"},
    "authz_source_leader": {"source"},
    "authz_source_age_seconds": {"source"},
    "authz_source_events_total": {"source", "event"},
    "authz_source_applications": {"source"},
    "authz_source_list_age_seconds": {"source"},
    "authz_source_applications_refused_total": {"source"},
    "authz_webhooks_total": {"result"},
    "authz_decision_samples_total": {"result"},
    "authz_replicas": set(),
    "process_cpu_seconds_total": {"worker"},
    "process_max_fds": {"worker"},
    "process_open_fds": {"worker"},
    "process_resident_memory_bytes": {"worker"},
    "process_start_time_seconds": {"worker"},
    "process_virtual_memory_bytes": {"worker"},
}
"""What ``/metrics`` says, with its labels."""

SITE = "https://grpc-org-authz.dev/latest"
"""Where the documents are published, each at ``/name/``."""

NOT_IN_NAMES = {
    *("counter", "gauge", "histogram", "summary"),
    *("ms", "us", "ns", "sec", "secs", "milliseconds", "microseconds", "minutes", "hours", "days"),
    *("kb", "mb", "kilobytes", "megabytes", "percent", "percentage"),
}
"""Types of metrics, and what is no base unit, or short for one."""

UNITS = {"seconds", "bytes", "age", "time", "timestamp", "memory"}
UNIT = r"_(seconds|bytes)(_total)?$"
"""A name with a word of the one ends as the other says."""

SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}
ADDED_BY_PROMETHEUS = {"job", "instance", "alertname", "alertstate"}
WORDS = {
    "verdict": get_args(Verdict),
    "source": (*get_args(Source), "here", "store", "workos"),
    "change": get_args(Change),
}

SELECTOR = re.compile(r"((?:authz|process)_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")


def alerts() -> list[dict[str, Any]]:
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text(encoding="utf-8"))
    return [rule for group in rules["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "deploy/grafana/authz.json").read_text(encoding="utf-8"))
    return found


def series() -> Iterator[str]:
    tests = yaml.safe_load((ROOT / "deploy/prometheus/alerts_test.yaml").read_text(encoding="utf-8"))["tests"]
    yield from (given["series"] for test in tests for given in test["input_series"])


def expressions() -> Iterator[str]:
    yield from (alert["expr"] for alert in alerts())
    yield from (target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", []))
    variables = dashboard()["templating"]["list"]
    yield from (variable["definition"] for variable in variables if variable["type"] == "query")


def threshold(name: str) -> float:
    [expression] = [alert["expr"] for alert in alerts() if alert["alert"] == name]
    return float(re.findall(r"> (\d+)", expression)[0])


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return all figures that there are, as Prometheus reads them."""
    folder, key = tmp_path_factory.mktemp("figures"), SigningKey.generate("ec-1", "ES256")
    (folder / "jwks.json").write_text(json.dumps(jwks(key)), encoding="utf-8")
    issuer = ("--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256", "--jwks", "jwks.json")
    with Program(
        *("serve", *issuer, "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"),
        *("--store", f"unix:{folder}/nowhere", "--remember", "30", "--xds", f"unix:{folder}/xds"),
        *("--workos-events", "--workos-applications", "--workos-base-url", "http://127.0.0.1:9"),
        *("--workos-webhooks", "127.0.0.1:0"),
        folder=folder,
        AUTHZ_WORKOS_API_KEY="sk_test",
        AUTHZ_WORKOS_WEBHOOK_SECRET="whsec_0123456789abcdef",
    ) as program:
        address = program.await_event("probes")["address"]
        return httpx2.get(f"http://{address}/metrics", timeout=PATIENCE, trust_env=False).text


def test_the_figures_are_those_of_the_program(told: str) -> None:
    kinds = re.findall(r"^# TYPE (\w+) (\w+)$", told, re.MULTILINE)

    assert {name + suffix for name, kind in kinds for suffix in SUFFIXES.get(kind, ("",))} == set(METRICS)


def test_the_figures_are_named_as_prometheus_asks(told: str) -> None:
    """What ``promtool check metrics`` looks for, and that OpenMetrics takes no family twice."""
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", told, re.MULTILINE))
    helped = dict(re.findall(r"^# HELP (\w+) (.*)$", told, re.MULTILINE))
    families = [name.removesuffix("_total") for name in kinds]
    words = {name: set(name.split("_")) for name in kinds}

    assert kinds.keys() == {name for name, meaning in helped.items() if re.fullmatch(r"[A-Z].+\.", meaning)}
    assert [name for name in kinds if not re.fullmatch(r"(authz|process)(_[a-z]+)+", name)] == []
    assert {name for name, kind in kinds.items() if kind == "counter"} == {
        name for name in kinds if name.endswith("_total")
    }
    assert [name for name in kinds if name.endswith(("_bucket", "_count", "_sum", "_created"))] == []
    assert [name for name, each in words.items() if each & NOT_IN_NAMES] == []
    assert [name for name, each in words.items() if each & UNITS and not re.search(UNIT, name)] == []
    assert len(set(families)) == len(families)
    labels = set(re.findall(r'[{,]([^={]+)="', told))
    assert [label for label in labels if not re.fullmatch(r"[a-z]+(_[a-z]+)*", label)] == []


def test_every_figure_that_is_asked_for_exists() -> None:
    asked = {name for text in (*expressions(), *series()) for name, _ in SELECTOR.findall(text)}
    assert asked <= set(METRICS)


def test_every_figure_is_shown() -> None:
    shown = {name for text in expressions() for name, _ in SELECTOR.findall(text)}
    assert shown == set(METRICS)


@pytest.mark.parametrize("text", [*expressions(), *series()])
def test_labels_are_those_of_the_figures(text: str) -> None:
    known: set[str] = set()
    for name, matchers in SELECTOR.findall(text):
        matched = MATCHER.findall(matchers)
        assert {label for label, _ in matched} <= METRICS[name] | ADDED_BY_PROMETHEUS
        for label, value in matched:
            assert set(value.split("|")) <= set(WORDS.get(label, value.split("|")))
        known |= METRICS[name]
    grouped = {label.strip() for labels in GROUPING.findall(text) for label in labels.split(",")}
    assert grouped <= known | ADDED_BY_PROMETHEUS


def test_alerts_say_what_is_wrong_and_where_to_read_on() -> None:
    explained = re.findall(r"^## (\w+)$", (ROOT / "docs/alerts.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [alert["alert"] for alert in alerts()] == explained
    for alert in alerts():
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
        assert alert["annotations"]["runbook_url"] == f"{SITE}/alerts/#{alert['alert'].lower()}"
        assert alert["labels"]["severity"] in {"warning", "critical"}


def test_every_alert_is_tested() -> None:
    tests = (ROOT / "deploy/prometheus/alerts_test.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r'alertname="(\w+)"', tests)) == {alert["alert"] for alert in alerts()}


def test_thresholds_follow_the_defaults() -> None:
    assert threshold("AuthzPendingChecks") == 0.75 * Settings.model_fields["max_pending"].default / 2
    assert threshold("AuthzKeysAgeing") == STALE / 2
    assert threshold("AuthzKeysExpiring") == STALE - 600


def test_what_callers_can_bring_about_wakes_nobody() -> None:
    """R6: anybody can make up keys, and any partner can send too much."""
    expressions = {alert["alert"]: (alert["expr"], alert["labels"]["severity"]) for alert in alerts()}

    assert 'verdict="undecided", reason!~"key_undecided|overloaded"' in expressions["AuthzUndecided"][0]
    assert expressions["AuthzLimited"][1] == "warning"


def test_the_dashboard_can_be_imported() -> None:
    panels = dashboard()["panels"]
    assert dashboard()["schemaVersion"] >= 38  # Grafana 10
    assert dashboard()["uid"] == "authz"
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {panel["datasource"]["uid"] for panel in panels if panel["type"] != "row"} == {"${datasource}"}


def test_panels_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
