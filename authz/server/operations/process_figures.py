"""The figures of processes that Prometheus expects of every program: CPU, memory, start and open files."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

ONE_PROCESS: Mapping[str, int | str] = {"0": "self"}
"""What stands for a process without a supervisor."""


class ProcessFigures(Collector):
    """Reads the figures of several processes when Prometheus asks, where the system has them (``/proc``).

    Each has a label of its own: memory that processes share would be counted several times in a sum, and the CPU time
    of a worker that ends would be missing from it.

    Args:
        processes: returns their ids by the number of the worker, or ``supervisor``.

    """

    def __init__(self, processes: Callable[[], Mapping[str, int | str]] = lambda: ONE_PROCESS) -> None:
        self._processes = processes

    def collect(self) -> Iterable[Metric]:
        """Return the figures; those of a process that has just ended are missing."""
        told: dict[str, Metric] = {}
        for worker, process in self._processes().items():
            for family in _figures_of(process):
                mine = told.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    mine.add_sample(sample.name, {"worker": worker}, sample.value)
        return told.values()


def _figures_of(process: int | str) -> Iterable[Metric]:
    return ProcessCollector(pid=lambda: process, registry=None).collect()
