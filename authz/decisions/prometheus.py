"""Decisions as figures for Prometheus, in the registry of the program that decides (extra ``prometheus``)."""

from typing import TYPE_CHECKING

from authz.decisions.decision import BUCKETS, Decision
from authz.decisions.usage import OTHER
from authz.errors import ConfigError
from authz.runtime.configuration import extra

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class PrometheusMetrics:
    """Count decisions; an observer of :class:`authz.Authorizer`.

    Where a figure means what one of ``authz serve`` does, it has the same name and labels. No label comes from a caller
    but, if asked for, the ids of a bounded number of organizations.

    Args:
        registry: where the figures are; by default that of ``prometheus_client``.
        organizations: how many organizations have figures of their own: the first whose calls are allowed. The calls of
            all others are in one.

    Raises:
        ConfigError: the extra is not installed, the registry has such figures already, or ``organizations`` is below 0.

    """

    def __init__(self, registry: "CollectorRegistry | None" = None, *, organizations: int = 0) -> None:
        if organizations < 0:
            raise ConfigError("organizations: how many have figures of their own cannot be below 0")
        with extra("prometheus", "PrometheusMetrics: it needs the extra", package="prometheus_client"):
            from prometheus_client import REGISTRY, Counter, Histogram  # noqa: PLC0415 - the extra's
        registry = registry or REGISTRY

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(name, meaning, labels, registry=registry)

        try:
            self._checks = counter("authz_checks", "Checks by outcome.", "verdict", "reason")
            self._evidence = counter("authz_evidence", "Checks by what the verdict rests on.", "source")
            self._seconds = Histogram(
                "authz_check_seconds", "Duration of a check, waiting included.", registry=registry, buckets=BUCKETS
            )
            self._ended = counter("authz_streams_ended", "Streams that were allowed and had to end.", "reason")
            self._routes = counter("authz_route_refusals", "Allowed calls that their route refused.", "reason")
            self._by_organization = (
                counter("authz_organization_checks", "Checks by organization.", "organization", "verdict")
                if organizations
                else None
            )
        except ValueError:
            raise ConfigError(
                "registry: it has the figures of another PrometheusMetrics; give one observer to all authorizers"
            ) from None
        self._counters: dict[tuple[str, ...], tuple[Counter, Counter]] = {}
        self._free, self._named = organizations, set[str]()

    def __call__(self, decision: Decision) -> None:
        """Count one decision."""
        reason = "" if decision.refusal is None else decision.refusal.reason
        if decision.event == "stream_ended":
            self._ended.labels(reason).inc()
        elif decision.event == "route_refused":
            self._routes.labels(reason).inc()
        else:
            self._count(decision.verdict, reason, decision.evidence.source)
            self._seconds.observe(decision.seconds)
            if self._by_organization is not None:
                self._by_organization.labels(self._organization(decision), decision.verdict).inc()

    def _count(self, *what: str) -> None:
        counters = self._counters.get(what)
        if counters is None:
            verdict, reason, source = what
            # Looking them up takes longer than counting.
            counters = self._checks.labels(verdict, reason), self._evidence.labels(source)
            self._counters[what] = counters
        for each in counters:
            each.inc()

    def _organization(self, decision: Decision) -> str:
        organization = decision.evidence.principal.org_id
        if not organization or organization in self._named:
            return organization
        # Without a lock: threads that come together may add one each.
        if decision.refusal is None and len(self._named) < self._free:
            self._named.add(organization)
            return organization
        return OTHER
