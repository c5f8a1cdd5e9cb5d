"""Structured log events, through the standard library's ``logging``.

A library must not choose its host's log format, so an event is one
``logging`` record of the logger ``authz``: its text reads
``name key='value'``, and ``record.event`` and ``record.fields`` hold the same
in parts. ``authz serve`` renders those with structlog.
"""

import logging

_logger = logging.getLogger("authz")
# Silent until the host configures logging, rather than on its standard error.
_logger.addHandler(logging.NullHandler())

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR


def event(level: int, name: str, /, **fields: object) -> None:
    """Log one event; ``fields`` must not hold tokens, secrets or exception texts."""
    if _logger.isEnabledFor(level):
        # ascii(): a value that a caller chose cannot forge a second log line.
        text = " ".join([name, *(f"{key}={value!a}" for key, value in fields.items())])
        _logger.log(level, "%s", text, extra={"event": name, "fields": fields})


def unforeseen(where: str, error: BaseException) -> None:
    """Log that ``error`` reached a door, by its type and place but not its text, which may hold a token."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    at = f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}" if trace else "?"
    event(ERROR, "unforeseen_error", where=where, error=type(error).__qualname__, at=at)
