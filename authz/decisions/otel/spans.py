"""Decisions as attributes of the spans of OpenTelemetry."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from authz.decisions.decision import Decision, text
from authz.decisions.otel.trace import sent_by
from authz.errors import ConfigError
from authz.runtime.configuration import extra

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

_SCOPE = "authz"

FIELDS = ("verdict", "reason", "organization", "client", "policy", "rule", "source")
"""What a span tells by default."""

# A record has seconds.
_MEMBERS = {"milliseconds": "seconds"}
_KNOWN = frozenset(
    {*FIELDS, "door", "subject", "client_name", "order_source", "shadow_verdict", "shadow_rule", "milliseconds"}
)


class OpenTelemetrySpans:
    """Tell of each decision in a span; an observer of :class:`authz.Authorizer`.

    The current span has the attributes ``authz.verdict``, ``authz.organization`` and so on. Where none is open, as in
    servers of gRPC, whose instrumentation opens one only when the handler runs, the decision is a span of its own,
    ``authz.check``, below the span that the caller sent. So is the end of a stream (``authz.stream_ended``).

    Args:
        provider: makes those spans; by default OpenTelemetry's global one.
        fields: what is told, out of :data:`FIELDS` and ``door``, ``subject``, ``client_name``, ``order_source``,
            ``shadow_verdict``, ``shadow_rule`` and ``milliseconds``. None of them is a token, or its id.

    Raises:
        ConfigError: a field that is not known, or the extra is not installed.

    """

    def __init__(self, provider: "TracerProvider | None" = None, *, fields: Collection[str] = FIELDS) -> None:
        unknown = sorted(set(fields) - _KNOWN)
        if isinstance(fields, str) or unknown:
            raise ConfigError(f"fields: {', '.join(map(ascii, unknown)) or 'a text'}; give some of {sorted(_KNOWN)}")
        with extra("otel", "OpenTelemetrySpans: it needs the extra", package="opentelemetry"):
            from opentelemetry import propagate, trace  # noqa: PLC0415 - the extra's
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=provider)
        self._current_span = trace.get_current_span
        self._error = trace.StatusCode.ERROR
        self._extract = propagate.extract
        self._fields = tuple(fields)

    def __call__(self, decision: Decision) -> None:
        """Tell of one decision."""
        span = self._current_span()
        # What ends a stream may be another call, which has a span of its own.
        if decision.event != "stream_ended" and span.get_span_context().is_valid:
            if span.is_recording():
                span.set_attributes(self._attributes(decision))
            return
        # As the log records have it: a float of today's time is too coarse for nanoseconds.
        end = round(decision.time * 1e6) * 1000
        span = self._tracer.start_span(
            "authz.check" if decision.event == "decision" else f"authz.{decision.event}",
            self._extract(sent_by(decision.call)),
            start_time=end - round(decision.seconds * 1e9),
        )
        if span.is_recording():
            span.set_attributes(self._attributes(decision))
            if decision.verdict in ("undecided", "failed"):
                span.set_status(self._error)
        span.end(end)

    def _attributes(self, decision: Decision) -> dict[str, Any]:
        record = decision.record()
        told = {name: getattr(record, _MEMBERS.get(name, name)) for name in self._fields}
        return {
            f"authz.{name}": text(value) if isinstance(value, str) else round(value * 1e3, 3)
            for name, value in told.items()
            if value != ""
        }
