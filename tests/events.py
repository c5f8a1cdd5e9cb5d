"""What is logged, awaited."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

PATIENCE = 120.0


class _Collector(logging.Handler):
    def __init__(self, name: str) -> None:
        super().__init__()
        self._wanted = name
        self.found: list[dict[str, Any]] = []
        self.has_come = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "event", "") == self._wanted:
            self.found.append(record.fields)  # type: ignore[attr-defined]
            self.has_come.set()


@contextlib.contextmanager
def told(name: str) -> Iterator[list[dict[str, Any]]]:
    """Collect the fields of the events of that name, and wait for one before the end of the block."""
    collector, logger = _Collector(name), logging.getLogger("authz")
    logger.addHandler(collector)
    try:
        yield collector.found
        assert collector.has_come.wait(PATIENCE)
    finally:
        logger.removeHandler(collector)
