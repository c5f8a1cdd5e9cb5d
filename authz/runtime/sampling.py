"""Sampling of log events: a bounded number of those that any caller can cause."""

import logging
import threading
import time
from collections.abc import Callable

from authz.runtime import fork

_BURST, _PERIOD = 20, 10.0


class LogSampling(logging.Filter):
    """Let pass a bounded number of events that say the same about different calls.

    Of each kind of event 20 pass in 10 s, and the first one after that has a field ``suppressed``: how many did not. It
    concerns events with a field ``method``, which the caller chooses, or ``where``; all others pass. Add it to the
    logger ``authz``, or to a handler: ``logging.getLogger("authz").addFilter(LogSampling())``.

    Args:
        burst: how many of one kind pass in one period.
        period: its length in seconds.
        monotonic: the clock, in seconds.

    """

    def __init__(
        self, *, burst: int = _BURST, period: float = _PERIOD, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._burst, self._period, self._now = burst, period, monotonic
        self.after_fork()
        fork.register(self)

    def after_fork(self) -> None:
        """Begin a period, with a lock that is free."""
        self._lock = threading.Lock()
        self._until = self._now() + self._period
        self._counts: dict[tuple[object, ...], int] = {}
        self._suppressed: dict[tuple[object, ...], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether to write ``record``."""
        fields = getattr(record, "fields", {})
        if "method" not in fields and "where" not in fields:
            return True
        kind = (getattr(record, "event", ""), fields.get("reason"), fields.get("error"), fields.get("change"))
        with self._lock:
            if self._now() >= self._until:
                self._until = self._now() + self._period
                counts, most = self._counts, self._burst
                self._suppressed = {one: count - most for one, count in counts.items() if count > most}
                self._counts = {}
            count = self._counts[kind] = self._counts.get(kind, 0) + 1
            suppressed = self._suppressed.pop(kind, 0) if count == 1 else 0
        if suppressed:
            record.fields = {**fields, "suppressed": suppressed}
        return count <= self._burst
