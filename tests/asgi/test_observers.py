"""Observers for Prometheus and OpenTelemetry on FastAPI, behind what opens a span for each request."""

from typing import Annotated, Any

from fastapi import FastAPI, Security
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry

from authz import Authorizer, OpenTelemetrySpans, Principal, PrometheusMetrics
from authz.asgi import AuthzMiddleware
from authz.asgi.protocol import App
from authz.fastapi import Caller
from tests.asgi.conftest import Serve, Token
from tests.doubles import ORG, eventually
from tests.http.client import ask, bearer


class Spans(SpanProcessor):
    """The spans that have ended, in order."""

    def __init__(self) -> None:
        self.ended: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span)


def traced(app: App, tracer: Tracer) -> App:
    """Return ``app`` with a span for each request, as OpenTelemetry's middleware for ASGI opens it."""

    async def call(scope: Any, receive: Any, send: Any) -> None:
        with tracer.start_as_current_span(scope["type"]):
            await app(scope, receive, send)

    return call


def test_request_is_counted_and_its_span_tells_of_the_decision(serve: Serve, judge: Authorizer, token: Token) -> None:
    registry, spans = CollectorRegistry(), Spans()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(spans)
    judge.telling.observe(PrometheusMetrics(registry))
    judge.telling.observe(OpenTelemetrySpans(tracers))
    app, caller = FastAPI(), Caller()

    @app.get("/orders")
    def orders(principal: Annotated[Principal, Security(caller, scopes=["admin"])]) -> None:
        raise AssertionError(principal)

    port = serve(traced(AuthzMiddleware(app, judge), tracers.get_tracer("tests")))

    assert [ask(port, "/orders").status, ask(port, "/orders", bearer(token())).status] == [401, 403]
    assert eventually(lambda: len([span for span in spans.ended if span.name == "http"]) == 2)
    first, second = [dict(span.attributes or {}) for span in spans.ended if span.name == "http"]
    assert (first["authz.verdict"], first["authz.reason"]) == ("denied", "token_missing")
    assert (second["authz.verdict"], second["authz.organization"]) == ("denied", ORG)
    assert registry.get_sample_value("authz_checks_total", {"verdict": "allowed", "reason": ""}) == 1
    assert registry.get_sample_value("authz_route_refusals_total", {"reason": second["authz.reason"]}) == 1
