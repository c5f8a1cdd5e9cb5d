"""The figures of remembered answers, for Prometheus."""

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from authz.server.memo.running import Running


class MemoFigures(Collector):
    """Reads the figures when Prometheus asks.

    Args:
        running: what has Envoy remember and forget.

    """

    def __init__(self, running: Running) -> None:
        self._running = running

    def collect(self) -> Iterator[Metric]:
        """Yield the figures; which Envoys listen is known only where they connect."""
        flushing, discovery = self._running
        yield CounterMetricFamily("authz_memo_flushes", "Times that Envoy was to forget all.", value=flushing.flushes)
        yield GaugeMetricFamily("authz_memo_age_seconds", "Since Envoy was to forget all.", value=flushing.age)
        if discovery is not None:
            yield GaugeMetricFamily("authz_memo_envoys", "Envoys that listen.", value=discovery.envoys)
            yield CounterMetricFamily("authz_memo_refused", "Scripts that an Envoy refused.", value=discovery.refused)
