"""Decisions as figures and spans, as the libraries of Prometheus and OpenTelemetry themselves receive them."""

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode
from prometheus_client import CollectorRegistry, Counter

from authz import OpenTelemetryMetrics, OpenTelemetrySpans, PrometheusMetrics
from authz.call.principal import ANONYMOUS
from authz.decisions.decision import Decision
from authz.decisions.usage import OTHER
from authz.errors import (
    AuthzError,
    ConfigError,
    InternalError,
    KeySetUnavailableError,
    PermissionDeniedError,
    TokenExpiredError,
)
from authz.server.operations.metrics import Metrics
from tests.decisions.samples import ACME, decision
from tests.doubles import NOW

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = ("traceparent", f"00-{TRACE}-{PARENT}-01")
SECRET = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJjIn0.c2VjcmV0"


def refused_by_route() -> Decision:
    return decision(PermissionDeniedError("scope", reason="insufficient_scope"))._replace(event="route_refused")


def ended() -> Decision:
    return decision(TokenExpiredError())._replace(event="stream_ended", seconds=0.0)


def of(organization: str, error: AuthzError | None = None) -> Decision:
    return decision(error, principal=replace(ACME, org_id=organization))


# ---- Prometheus ----


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def figures(registry: CollectorRegistry) -> dict[str, float]:
    """Return the values that are not 0, by name and labels."""
    return {
        f"{sample.name}{json.dumps(sample.labels)}" if sample.labels else sample.name: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.value and not sample.name.endswith(("_bucket", "_created"))
    }


def test_decisions_are_counted_by_what_they_are(registry: CollectorRegistry) -> None:
    observe = PrometheusMetrics(registry)
    for one in (decision(), decision(), decision(TokenExpiredError()), ended(), refused_by_route()):
        observe(one)

    assert figures(registry) == {
        'authz_checks_total{"verdict": "allowed", "reason": ""}': 2,
        'authz_checks_total{"verdict": "denied", "reason": "token_expired"}': 1,
        'authz_evidence_total{"source": "cache"}': 3,
        "authz_check_seconds_count": 3,
        "authz_check_seconds_sum": pytest.approx(3 * 0.0012345),
        'authz_streams_ended_total{"reason": "token_expired"}': 1,
        'authz_route_refusals_total{"reason": "insufficient_scope"}': 1,
    }


def test_what_means_the_same_is_called_as_by_the_server(registry: CollectorRegistry) -> None:
    observe, server = PrometheusMetrics(registry, organizations=1), Metrics(engine="grpcio", organizations=1)
    observe(decision())
    server(decision())
    server.usage(decision())
    server.usage.refresh()
    server._count_decisions()  # noqa: SLF001 - what a whole refresh does, without a judge

    def told(registry: CollectorRegistry) -> dict[str, tuple[str, str, list[Any]]]:
        return {
            family.name: (
                family.type,
                family.documentation,
                [(sample.name, sample.labels) for sample in family.samples if not sample.name.endswith("_created")],
            )
            for family in registry.collect()
        }

    ours, theirs = told(registry), told(server._registry)  # noqa: SLF001 - as above
    only_here = {"authz_streams_ended", "authz_route_refusals"}
    assert ours.keys() - theirs.keys() == only_here
    assert {name: each for name, each in ours.items() if name not in only_here} == {
        name: theirs[name] for name in ours.keys() - only_here
    }


def test_only_so_many_organizations_have_figures_of_their_own(registry: CollectorRegistry) -> None:
    observe = PrometheusMetrics(registry, organizations=2)
    refused = [of(f"org_refused-{number}", TokenExpiredError()) for number in range(50)]
    for one in (*refused, of("org_1"), of("org_2"), of("org_3"), of("org_1", TokenExpiredError())):
        observe(one)
    observe(decision(TokenExpiredError(), principal=ANONYMOUS))

    name = "authz_organization_checks_total"
    assert {key: value for key, value in figures(registry).items() if key.startswith(name)} == {
        f'{name}{{"organization": "org_1", "verdict": "allowed"}}': 1,
        f'{name}{{"organization": "org_1", "verdict": "denied"}}': 1,
        f'{name}{{"organization": "org_2", "verdict": "allowed"}}': 1,
        f'{name}{{"organization": "{OTHER}", "verdict": "allowed"}}': 1,
        f'{name}{{"organization": "{OTHER}", "verdict": "denied"}}': 50,
        f'{name}{{"organization": "", "verdict": "denied"}}': 1,
    }


def test_by_default_no_organization_is_a_label(registry: CollectorRegistry) -> None:
    PrometheusMetrics(registry)(decision())

    assert not [name for name in figures(registry) if "org" in name]


def test_second_observer_of_one_registry_is_an_error_that_says_what_to_do(registry: CollectorRegistry) -> None:
    PrometheusMetrics(registry)

    with pytest.raises(ConfigError, match="give one observer to all authorizers"):
        PrometheusMetrics(registry)


def test_negative_number_of_organizations_is_a_mistake(registry: CollectorRegistry) -> None:
    with pytest.raises(ConfigError, match=r"^organizations: "):
        PrometheusMetrics(registry, organizations=-1)


def test_figures_of_the_program_stand_beside_ours(registry: CollectorRegistry) -> None:
    Counter("orders", "Orders.", registry=registry).inc()
    PrometheusMetrics(registry)(decision())

    assert {"orders_total", "authz_check_seconds_count"} <= figures(registry).keys()


# ---- OpenTelemetry: figures ----


def measured(reader: InMemoryMetricReader) -> dict[str, Any]:
    """Return the points by name, unit and attributes: a number, or how many there are and their sum."""
    data = reader.get_metrics_data()
    return {
        f"{metric.name} {metric.unit} {json.dumps(dict(sorted(point.attributes.items())))}": getattr(
            point, "value", None
        )
        or (point.count, round(point.sum, 9), point.explicit_bounds[:2])
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


def test_meter_counts_decisions_by_what_they_are(reader: InMemoryMetricReader) -> None:
    observe = OpenTelemetryMetrics(MeterProvider([reader], shutdown_on_exit=False))
    for one in (decision(), decision(), decision(TokenExpiredError()), ended(), refused_by_route()):
        observe(one)

    door = '"authz.door": "envoy"'
    expired = '"authz.reason": "token_expired"'
    assert measured(reader) == {
        f'authz.checks {{check}} {{{door}, "authz.source": "cache", "authz.verdict": "allowed"}}': 2,
        f'authz.checks {{check}} {{{door}, {expired}, "authz.source": "cache", "authz.verdict": "denied"}}': 1,
        f"authz.streams.ended {{stream}} {{{door}, {expired}}}": 1,
        f'authz.route.refusals {{call}} {{{door}, "authz.reason": "insufficient_scope"}}': 1,
        f'authz.check.duration s {{{door}, "authz.verdict": "allowed"}}': (2, 0.002469, (0.0001, 0.00025)),
        f'authz.check.duration s {{{door}, "authz.verdict": "denied"}}': (1, 0.0012345, (0.0001, 0.00025)),
    }


def test_no_attribute_of_a_figure_comes_from_a_caller(reader: InMemoryMetricReader) -> None:
    observe = OpenTelemetryMetrics(MeterProvider([reader], shutdown_on_exit=False))
    observe(decision(method="/chosen/ByTheCaller", verb="CHOSEN", credentials=f"Bearer {SECRET}"))
    told = " ".join(measured(reader))

    assert not [mark for mark in ("hosen", SECRET, ACME.org_id, ACME.client_id) if mark in told.lower()]


# ---- OpenTelemetry: spans ----


class Spans(SpanProcessor):
    """The spans that have ended, in order."""

    def __init__(self) -> None:
        self.ended: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span)


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def tracers(spans: Spans) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(spans)
    return provider


ABOUT = {
    "authz.verdict": "denied",
    "authz.reason": "token_expired",
    "authz.organization": "org_01JYACME",
    "authz.client": "client_01JYPARTNER",
    "authz.policy": "ledger",
    "authz.rule": "readers",
    "authz.source": "cache",
}


def test_current_span_tells_of_the_decision(spans: Spans, tracers: TracerProvider) -> None:
    with tracers.get_tracer("tests").start_as_current_span("call"):
        OpenTelemetrySpans(tracers)(decision(TokenExpiredError(), credentials=f"Bearer {SECRET}"))

    [span] = spans.ended
    assert (span.name, dict(span.attributes or {}), span.status.status_code) == ("call", ABOUT, StatusCode.UNSET)
    assert SECRET not in span.to_json()


def test_where_no_span_is_open_the_decision_is_one_below_that_of_the_caller(
    spans: Spans, tracers: TracerProvider
) -> None:
    one = decision(TokenExpiredError())
    OpenTelemetrySpans(tracers)(one._replace(call=one.call._replace(metadata=[TRACEPARENT])))

    [span] = spans.ended
    assert (span.name, dict(span.attributes or {})) == ("authz.check", ABOUT)
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}" if span.parent else "") == (TRACE, PARENT)
    end = int(NOW) * 10**9 + 250_000_000
    assert (span.start_time, span.end_time) == (end - 1_234_500, end)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, StatusCode.UNSET),
        (TokenExpiredError(), StatusCode.UNSET),
        (KeySetUnavailableError(), StatusCode.ERROR),
        (InternalError(), StatusCode.ERROR),
    ],
    ids=["allowed", "denied", "undecided", "failed"],
)
def test_span_of_its_own_is_an_error_where_there_was_no_verdict(
    spans: Spans, tracers: TracerProvider, error: AuthzError | None, status: StatusCode
) -> None:
    OpenTelemetrySpans(tracers)(decision(error))

    assert [span.status.status_code for span in spans.ended] == [status]


def test_end_of_a_stream_is_not_told_in_the_span_that_ends_it(spans: Spans, tracers: TracerProvider) -> None:
    with tracers.get_tracer("tests").start_as_current_span("suspend"):
        OpenTelemetrySpans(tracers)(ended())

    [own, other] = spans.ended
    assert (own.name, dict(own.attributes or {})) == ("authz.stream_ended", ABOUT)
    assert (other.name, dict(other.attributes or {})) == ("suspend", {})


def test_route_that_refuses_an_allowed_call_changes_what_its_span_tells(spans: Spans, tracers: TracerProvider) -> None:
    observe = OpenTelemetrySpans(tracers, fields=["verdict", "reason"])
    with tracers.get_tracer("tests").start_as_current_span("call"):
        observe(decision())
        observe(refused_by_route())

    [span] = spans.ended
    assert dict(span.attributes or {}) == {"authz.verdict": "denied", "authz.reason": "insufficient_scope"}


def test_trace_that_is_not_sampled_costs_no_span(spans: Spans) -> None:
    off = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    off.add_span_processor(spans)
    observe = OpenTelemetrySpans(off)
    with off.get_tracer("tests").start_as_current_span("call"):
        observe(decision())
    observe(decision())

    assert spans.ended == []


def test_fields_are_chosen_and_a_misspelt_one_is_named(spans: Spans, tracers: TracerProvider) -> None:
    OpenTelemetrySpans(tracers, fields=["door", "milliseconds"])(decision())

    assert [dict(span.attributes or {}) for span in spans.ended] == [
        {"authz.door": "envoy", "authz.milliseconds": 1.234}
    ]
    for wrong in (["token_id"], ["claims", "verdict"], "verdict"):
        with pytest.raises(ConfigError, match=r"^fields: "):
            OpenTelemetrySpans(tracers, fields=wrong)


# ---- Extras ----


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("PrometheusMetrics", "prometheus_client", "prometheus"),
        ("OpenTelemetryMetrics", "opentelemetry", "otel"),
        ("OpenTelemetrySpans", "opentelemetry", "otel"),
    ],
)
def test_missing_extra_is_named(name: str, package: str, extra: str) -> None:
    program = (
        f"import sys; sys.modules['{package}'] = None\n"
        f"from authz import ConfigError, {name}\n"
        f"try: {name}()\n"
        "except ConfigError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert done.stdout.strip() == f"{name}: it needs the extra: pip install 'grpc-org-authz[{extra}]'"
