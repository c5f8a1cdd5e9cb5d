"""The figures of the operator's orders, and of the store that shares them, for Prometheus."""

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from typing import get_args

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from authz.judge.orders.order import Kind, Source, Verb
from authz.server.operations.source_figures import application_figures, source_figures, webhook_figures
from authz.server.shared_orders import SharedOrders, Way


class OrderFigures(Collector):
    """Reads the figures when Prometheus asks; those of the store only where there is one.

    Args:
        shared: the orders of this process.

    """

    def __init__(self, shared: SharedOrders) -> None:
        self._shared = shared

    def collect(self) -> Iterator[Metric]:
        """Yield the figures."""
        book, now = self._shared.operator.book, time.time()
        in_force = Counter(order.kind for order in book if order.is_refusing and order.concerns(None, now))
        in_force["token"] += len(book.tokens)
        orders = GaugeMetricFamily("authz_orders_in_force", "Orders of the operator in force.", labels=["kind"])
        for kind in get_args(Kind):
            orders.add_metric([kind], in_force[kind])
        yield orders
        given = CounterMetricFamily("authz_orders", "Orders carried out.", labels=["verb", "source", "way"])
        for verb, source, way in itertools.product(get_args(Verb), get_args(Source), get_args(Way)):
            given.add_metric([verb, source, way], self._shared.given[verb, source, way])
        yield given
        if self._shared.events is not None:
            yield from source_figures(self._shared.events)
        if self._shared.applications is not None:
            yield from application_figures(self._shared.applications)
        if self._shared.webhooks is not None:
            yield from webhook_figures(self._shared.webhooks.counts)
        sharing = self._shared.sharing
        if sharing is None:
            return
        follower = sharing.follower
        yield GaugeMetricFamily("authz_store_up", "Whether the store answers.", value=follower.error is None)
        yield GaugeMetricFamily("authz_store_age_seconds", "Since the store was heard last.", value=follower.age)
        yield CounterMetricFamily("authz_orders_ignored", "Entries that are no orders.", value=follower.ignored)
        yield CounterMetricFamily(
            "authz_store_regressed", "Times that the store had lost orders.", value=follower.regressed
        )
        samples = CounterMetricFamily(
            "authz_decision_samples", "Decisions told while an admin page is open, or not.", labels=["result"]
        )
        for result, count in sharing.decisions.counts.items():
            samples.add_metric([result], count)
        yield samples
        yield GaugeMetricFamily("authz_replicas", "Replicas that share the store.", value=sharing.heartbeat.count)
