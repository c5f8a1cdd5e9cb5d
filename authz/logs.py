"""How the commands of this package write their log: structlog, as JSON lines or as text, on standard error."""

import logging
import sys
from typing import Any, Literal

import structlog
from structlog.typing import EventDict

LogFormat = Literal["auto", "json", "text"]


def configure(level: str, log_format: LogFormat = "auto") -> None:
    """Send every log record of this process to standard error.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        log_format: ``json``, ``text``, or ``auto`` for text on a terminal and JSON elsewhere.

    """
    is_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.processors.JSONRenderer()
    if is_text:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _fields,
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # It names every URL that it asks.
    logging.getLogger("httpx2").setLevel(logging.WARNING)


def _fields(_logger: Any, _method: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event["_record"]
    event["event"] = getattr(record, "event", event["event"])
    event.update(getattr(record, "fields", {}))
    return event
