"""Decisions as log records of OpenTelemetry."""

from typing import TYPE_CHECKING, Any

from authz.call.verb import KNOWN
from authz.decisions.decision import Decision, Verdict
from authz.decisions.otel.trace import sent_by
from authz.runtime.configuration import extra

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.context import Context

_SCOPE = "authz"
# Fields for which OpenTelemetry has names; the others are authz.organization and so on.
_NAMES = {"method": "rpc.method", "verb": "http.request.method", "code": "rpc.response.status_code"}
# The log record has fields of its own for these.
_OWN = {"time", "event"}
_SEVERITIES: dict[Verdict, str] = {"allowed": "INFO", "denied": "WARN", "undecided": "ERROR", "failed": "ERROR"}


class OpenTelemetryLog:
    """Emit decisions as log records; an observer of :class:`authz.Authorizer`.

    A record belongs to the current span, else to the span that the caller sent.
    Give the provider a ``BatchLogRecordProcessor``: with others, every decision waits for the exporter.

    Args:
        provider: receives the records; by default OpenTelemetry's global one.

    Raises:
        ConfigError: the extra is not installed.

    """

    def __init__(self, provider: "LoggerProvider | None" = None) -> None:
        with extra("otel", "OpenTelemetryLog: it needs the extra", package="opentelemetry"):
            from opentelemetry import propagate, trace  # noqa: PLC0415 - the extra's
            from opentelemetry._logs import SeverityNumber, get_logger  # noqa: PLC0415
        self._logger = get_logger(_SCOPE, logger_provider=provider)
        self._severities = {verdict: SeverityNumber[name] for verdict, name in _SEVERITIES.items()}
        self._extract = propagate.extract
        self._current_span = trace.get_current_span

    def __call__(self, decision: Decision) -> None:
        """Emit one decision."""
        self._logger.emit(
            timestamp=round(decision.time * 1e6) * 1000,
            context=self._context(decision),
            severity_number=self._severities[decision.verdict],
            severity_text=_SEVERITIES[decision.verdict],
            body=f"{decision.event} {decision.verdict}",
            attributes=_attributes(decision),
            event_name=f"authz.{decision.event}",
        )

    def _context(self, decision: Decision) -> "Context | None":
        if self._current_span().get_span_context().is_valid:
            return None
        # The instrumentation of gRPC servers opens its span only when the handler is called.
        return self._extract(sent_by(decision.call))


def _attributes(decision: Decision) -> dict[str, Any]:
    fields = decision.fields()
    if fields["verb"] and fields["verb"] not in KNOWN:
        # As its semantic conventions for HTTP want, so that a caller cannot make up any number of them.
        fields = {**fields, "verb": "_OTHER", "http.request.method_original": fields["verb"]}
    return {
        _NAMES.get(name, name if "." in name else f"authz.{name}"): value
        for name, value in fields.items()
        if name not in _OWN and value not in (None, "", [])
    }
