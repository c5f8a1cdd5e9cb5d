"""Observers for Prometheus and OpenTelemetry at the doors of gRPC, with the libraries themselves."""

import grpc
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from prometheus_client import CollectorRegistry

from authz import (
    Authorizer,
    Decision,
    OpenTelemetryMetrics,
    OpenTelemetrySpans,
    PrometheusMetrics,
    Verifier,
)
from tests.doubles import CLIENT, ORG, eventually
from tests.interceptors.client import bearer
from tests.interceptors.conftest import ServeAll
from tests.interceptors.servers import Door

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")
SECRET = "a.token.that-nobody-may-see-again"


class Spans(SpanProcessor):
    """The spans that have ended, in order."""

    def __init__(self) -> None:
        self.ended: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span)


def test_every_call_is_counted_and_traced(serve_all: ServeAll, verifier: Verifier, token: str, door: Door) -> None:
    registry, reader, spans = CollectorRegistry(), InMemoryMetricReader(), Spans()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(spans)
    meters = MeterProvider([reader], shutdown_on_exit=False)
    observers = [PrometheusMetrics(registry), OpenTelemetryMetrics(meters), OpenTelemetrySpans(tracers)]
    served = serve_all(judge=Authorizer(verifier, observers=observers))

    served.call("unary_unary", metadata=[*bearer(token), TRACEPARENT])
    served.call("unary_unary", metadata=[*bearer(SECRET), TRACEPARENT])

    def counted(**labels: str) -> float | None:
        return registry.get_sample_value("authz_checks_total", labels)

    assert eventually(lambda: len(spans.ended) == 2)
    assert (counted(verdict="allowed", reason=""), counted(verdict="denied", reason="token_malformed")) == (1, 1)
    assert registry.get_sample_value("authz_check_seconds_count") == 2
    name = "grpc_aio" if door.is_aio else "grpc"
    data = reader.get_metrics_data()
    assert data is not None
    [scope] = data.resource_metrics[0].scope_metrics
    [checks] = [metric.data.data_points for metric in scope.metrics if metric.name == "authz.checks"]
    assert {point.attributes["authz.door"] for point in checks} == {name}
    allowed, denied = [dict(span.attributes or {}) for span in spans.ended]
    assert (allowed["authz.organization"], allowed["authz.client"]) == (ORG, CLIENT)
    assert (denied["authz.reason"], "authz.organization" in denied) == ("token_malformed", False)
    assert {f"{span.context.trace_id:032x}" for span in spans.ended} == {TRACE}
    assert not [span for span in spans.ended if SECRET in span.to_json() or token in span.to_json()]


def test_observer_that_fails_changes_nothing(
    serve_all: ServeAll, verifier: Verifier, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        """A registry whose figures cannot be written, as with a full disk where several processes share them."""

        def __call__(self, _decision: Decision) -> None:
            raise OSError(28, f"No space left on device: {SECRET}")

    registry = CollectorRegistry()
    served = serve_all(judge=Authorizer(verifier, observers=[Broken(), PrometheusMetrics(registry)]))

    outcome = served.call("unary_unary", metadata=bearer(token))

    assert outcome.code == grpc.StatusCode.OK
    assert registry.get_sample_value("authz_check_seconds_count") == 1
    assert "unforeseen_error where='observer' error='OSError'" in caplog.text
    assert SECRET not in caplog.text
