"""Decisions as figures of OpenTelemetry."""

from typing import TYPE_CHECKING

from authz.decisions.decision import BUCKETS, Decision
from authz.runtime.configuration import extra

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, MeterProvider

_SCOPE = "authz"


class OpenTelemetryMetrics:
    """Count decisions with a meter; an observer of :class:`authz.Authorizer`.

    No attribute comes from a caller.

    Args:
        provider: makes the meter; by default OpenTelemetry's global one.

    Raises:
        ConfigError: the extra is not installed.

    """

    def __init__(self, provider: "MeterProvider | None" = None) -> None:
        with extra("otel", "OpenTelemetryMetrics: it needs the extra", package="opentelemetry"):
            from opentelemetry.metrics import get_meter  # noqa: PLC0415 - the extra's
        meter = get_meter(_SCOPE, meter_provider=provider)

        def counter(name: str, unit: str, meaning: str) -> "Counter":
            return meter.create_counter(name, unit=unit, description=meaning)

        self._checks = counter("authz.checks", "{check}", "Checks by outcome.")
        self._ended = counter("authz.streams.ended", "{stream}", "Streams that were allowed and had to end.")
        self._routes = counter("authz.route.refusals", "{call}", "Allowed calls that their route refused.")
        self._seconds = meter.create_histogram(
            "authz.check.duration",
            unit="s",
            description="Duration of a check, waiting included.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )

    def __call__(self, decision: Decision) -> None:
        """Count one decision."""
        about: dict[str, str] = {"authz.door": decision.door}
        if decision.refusal is not None:
            about["authz.reason"] = decision.refusal.reason
        if decision.event == "stream_ended":
            self._ended.add(1, about)
        elif decision.event == "route_refused":
            self._routes.add(1, about)
        else:
            verdict = decision.verdict
            self._checks.add(1, {**about, "authz.verdict": verdict, "authz.source": decision.evidence.source})
            self._seconds.record(decision.seconds, {"authz.door": decision.door, "authz.verdict": verdict})
