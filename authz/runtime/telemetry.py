"""Structured log events, through the standard library's ``logging``.

A library must not choose its host's log format, so an event is one ``logging``
record of the logger ``authz``: its text reads ``name key='value'``, and
``record.event`` and ``record.fields`` hold the parts, which ``authz serve`` renders.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from authz.runtime import fork
from authz.runtime.text.printable import bounded

_logger = logging.getLogger("authz")
# Silent until the host configures logging; Python's default would be standard error.
_logger.addHandler(logging.NullHandler())

# Of one kind, so many pass in so many seconds.
_BURST, _PERIOD = 20, 10.0

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR


def is_logged(level: int) -> bool:
    """Say whether events of ``level`` are logged, where it costs something to find out what to say of one."""
    return _logger.isEnabledFor(level)


def event(level: int, name: str, /, **fields: object) -> None:
    """Log one event, with long values shortened; ``fields`` must hold no token, secret or exception text."""
    if _logger.isEnabledFor(level):
        for sampling in _samplings:
            sampled = sampling.sampled(name, fields)
            if sampled is None:
                return
            fields = sampled
        # Shortened here, because records may wait to be written: a path may have as many megabytes as a request.
        fields = {key: bounded(value) if isinstance(value, str) else value for key, value in fields.items()}
        # ascii(): a value that a caller has chosen cannot forge a second log line.
        text = " ".join([name, *(f"{key}={value!a}" for key, value in fields.items())])
        _logger.log(level, "%s", text, extra={"event": name, "fields": fields})


def sample(sampling: "LogSampling | None") -> None:
    """Ask ``sampling``, and no other that was set so, whether to log each event; ``None`` logs all of them.

    It is asked before a record is made, which costs more than the verdict that most refusals are about.
    """
    _samplings[:] = [] if sampling is None else [sampling]


_samplings: "list[LogSampling]" = []


def unforeseen(where: str, error: BaseException) -> None:
    """Log an error that reached a door: its type and place, but not its text, which may hold a token."""
    event(ERROR, "unforeseen_error", where=where, **cause(error))


def cause(error: BaseException) -> dict[str, str]:
    """Return the type and the place of ``error``: all of it that may be logged."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    at = f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}" if trace else "?"
    return {"error": type(error).__qualname__, "at": at}


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
        sampled = self.sampled(getattr(record, "event", ""), fields)
        if sampled is not None and sampled is not fields:
            record.fields = sampled
        return sampled is not None

    def sampled(self, event: str, fields: dict[str, Any]) -> dict[str, Any] | None:
        """Return what to write of an event: ``fields``, or more than these; ``None`` for nothing."""
        if "method" not in fields and "where" not in fields:
            return fields
        kind = (event, fields.get("reason"), fields.get("error"), fields.get("change"))
        with self._lock:
            if self._now() >= self._until:
                self._until = self._now() + self._period
                counts, most = self._counts, self._burst
                self._suppressed = {one: count - most for one, count in counts.items() if count > most}
                self._counts = {}
            count = self._counts[kind] = self._counts.get(kind, 0) + 1
            suppressed = self._suppressed.pop(kind, 0) if count == 1 else 0
        if count > self._burst:
            return None
        return {**fields, "suppressed": suppressed} if suppressed else fields
