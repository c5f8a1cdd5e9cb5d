"""Decisions as OpenTelemetry's own SDK receives them."""

import subprocess
import sys
import weakref

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    InMemoryLogRecordExporter,
    SimpleLogRecordProcessor,
)
from opentelemetry.sdk.trace import TracerProvider

from authz.call.call import MAX_ENTRIES
from authz.call.principal import ANONYMOUS
from authz.decisions.otel.log import OpenTelemetryLog
from authz.errors import AuthzError, InternalError, KeySetUnavailableError, TokenExpiredError
from tests.decisions.samples import Metadata, decision
from tests.doubles import NOW

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")


@pytest.fixture
def exporter() -> InMemoryLogRecordExporter:
    return InMemoryLogRecordExporter()


@pytest.fixture
def log(exporter: InMemoryLogRecordExporter) -> OpenTelemetryLog:
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    return OpenTelemetryLog(provider)


def test_record_tells_who_called_what_and_why_it_was_decided_so(
    log: OpenTelemetryLog, exporter: InMemoryLogRecordExporter
) -> None:
    log(decision(TokenExpiredError()))
    [record] = [one.log_record for one in exporter.get_finished_logs()]

    assert (record.event_name, record.body, record.severity_text) == (
        "authz.decision",
        "decision denied",
        "WARN",
    )
    assert record.timestamp == int(NOW) * 10**9 + 250_000_000
    assert dict(record.attributes or {}) == {
        "rpc.method": "/a.B/C",
        "http.request.method": "POST",
        "rpc.response.status_code": "UNAUTHENTICATED",
        "authz.door": "envoy",
        "authz.verdict": "denied",
        "authz.reason": "token_expired",
        "authz.organization": "org_01JYACME",
        "authz.client": "client_01JYPARTNER",
        "authz.subject": "client_01JYPARTNER",
        "authz.scopes": ("ledger:read", "ledger:write"),
        "authz.token_id": "01JYTOKEN",
        "authz.key_id": "key-1",
        "authz.key_age": 12.5,
        "authz.policy": "ledger",
        "authz.rule": "readers",
        "authz.shadow_verdict": "denied",
        "authz.shadow_rule": "next",
        "authz.source": "cache",
        "authz.milliseconds": 1.234,
    }


@pytest.mark.parametrize(
    ("error", "severity"),
    [(None, "INFO"), (TokenExpiredError(), "WARN"), (KeySetUnavailableError(), "ERROR"), (InternalError(), "ERROR")],
    ids=["allowed", "denied", "undecided", "failed"],
)
def test_severity_is_that_of_the_verdict(
    log: OpenTelemetryLog, exporter: InMemoryLogRecordExporter, error: AuthzError | None, severity: str
) -> None:
    log(decision(error))
    [record] = [one.log_record for one in exporter.get_finished_logs()]

    assert (record.severity_text, record.severity_number and record.severity_number.name) == (severity, severity)


def test_what_is_not_known_is_left_out(log: OpenTelemetryLog, exporter: InMemoryLogRecordExporter) -> None:
    log(decision(principal=ANONYMOUS)._replace(key_age=None, seconds=0.0))
    [record] = [one.log_record for one in exporter.get_finished_logs()]

    attributes = dict(record.attributes or {})

    assert not {"authz.organization", "authz.scopes", "authz.reason", "authz.key_age"} & attributes.keys()
    assert attributes["authz.milliseconds"] == 0.0


@pytest.mark.parametrize(
    ("verb", "told"),
    [
        ("DELETE", {"http.request.method": "DELETE"}),
        ("PROPFIND", {"http.request.method": "_OTHER", "http.request.method_original": "PROPFIND"}),
        ("get", {"http.request.method": "_OTHER", "http.request.method_original": "get"}),
        ("", {}),
    ],
)
def test_http_method_has_the_name_of_the_semantic_conventions(
    log: OpenTelemetryLog, exporter: InMemoryLogRecordExporter, verb: str, told: dict[str, str]
) -> None:
    """A caller may make up any number of them, so a backend groups only by those that are known."""
    log(decision(verb=verb))
    [record] = [one.log_record for one in exporter.get_finished_logs()]

    found = dict(record.attributes or {})
    assert {name: value for name, value in found.items() if name.startswith("http.")} == told
    assert "authz.verb" not in found


def test_record_belongs_to_the_span_that_the_caller_sent(
    log: OpenTelemetryLog, exporter: InMemoryLogRecordExporter
) -> None:
    one = decision()
    log(one._replace(call=one.call._replace(metadata=[("trace-bin", b"\0"), TRACEPARENT])))
    [record] = [one.log_record for one in exporter.get_finished_logs()]

    assert f"{record.trace_id:032x}" == TRACE


def test_trace_is_looked_for_among_so_many_entries_only(
    log: OpenTelemetryLog, exporter: InMemoryLogRecordExporter
) -> None:
    one, entries = decision(), 80_000 * [("x", "")]
    log(one._replace(call=one.call._replace(metadata=[*entries[:MAX_ENTRIES], TRACEPARENT, *entries])))
    [record] = [one.log_record for one in exporter.get_finished_logs()]

    assert not record.trace_id


def test_record_belongs_to_the_current_span_first(log: OpenTelemetryLog, exporter: InMemoryLogRecordExporter) -> None:
    one = decision()
    with TracerProvider(shutdown_on_exit=False).get_tracer("tests").start_as_current_span("call") as span:
        log(one._replace(call=one.call._replace(metadata=[TRACEPARENT])))
    [record] = [one.log_record for one in exporter.get_finished_logs()]

    assert (record.trace_id, record.span_id) == (span.get_span_context().trace_id, span.get_span_context().span_id)


def test_what_waits_for_the_exporter_holds_nothing_of_the_question(exporter: InMemoryLogRecordExporter) -> None:
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter, schedule_delay_millis=3_600_000))
    one = decision()
    metadata = Metadata([TRACEPARENT, ("x-padding", "x" * 58_000)])
    question = weakref.ref(metadata)
    OpenTelemetryLog(provider)(one._replace(call=one.call._replace(metadata=metadata)))
    del one, metadata

    assert exporter.get_finished_logs() == ()
    assert question() is None
    provider.shutdown()
    assert len(exporter.get_finished_logs()) == 1


def test_missing_extra_is_named() -> None:
    # As if it were not installed.
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from authz.errors import ConfigError\n"
        "from authz.decisions.otel.log import OpenTelemetryLog\n"
        "try: OpenTelemetryLog()\n"
        "except ConfigError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert done.stdout.strip() == "OpenTelemetryLog: it needs the extra: pip install 'grpc-org-authz[otel]'"
