"""The figures of what follows WorkOS: its events, its list of applications, its webhooks."""

from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from authz.server.workos.events import WORKOS
from authz.server.workos.following import WorkOSEvents
from authz.server.workos.listing import WorkOSApplications


def source_figures(events: WorkOSEvents) -> Iterator[Metric]:
    """Yield the figures."""
    gauges = {
        "authz_source_up": ("Whether the source of orders answers.", events.is_up),
        "authz_source_leader": ("Whether this process is the one that follows the source.", events.is_leading),
        "authz_source_age_seconds": ("Since this process has heard the source last.", events.age),
    }
    for name, (meaning, value) in gauges.items():
        gauge = GaugeMetricFamily(name, meaning, labels=["source"])
        gauge.add_metric([WORKOS], value)
        yield gauge
    told = CounterMetricFamily("authz_source_events", "Events of the source, read here.", labels=["source", "event"])
    for name, count in events.counts.items():
        told.add_metric([WORKOS, name], count)
    yield told


def application_figures(applications: WorkOSApplications) -> Iterator[Metric]:
    """Yield the figures of the list of applications."""
    gauges = {
        "authz_source_applications": ("Applications of the source that are known.", len(applications.known)),
        "authz_source_list_age_seconds": ("Since this process has listed all applications last.", applications.age),
    }
    for name, (meaning, value) in gauges.items():
        gauge = GaugeMetricFamily(name, meaning, labels=["source"])
        gauge.add_metric([WORKOS], value)
        yield gauge
    deleted = CounterMetricFamily(
        "authz_source_applications_refused", "Applications that the source has no more.", labels=["source"]
    )
    deleted.add_metric([WORKOS], applications.refused)
    yield deleted


def webhook_figures(counts: Mapping[str, int]) -> Iterator[Metric]:
    """Yield how many webhooks have come, by what came of them."""
    taken = CounterMetricFamily("authz_webhooks", "Posts to the port for webhooks.", labels=["result"])
    for result, count in counts.items():
        taken.add_metric([result], count)
    yield taken
