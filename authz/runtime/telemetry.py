"""Structured log events, through the standard library's ``logging``.

A library must not choose its host's log format, so an event is one ``logging``
record of the logger ``authz``: its text reads ``name key='value'``, and
``record.event`` and ``record.fields`` hold the parts, which ``authz serve`` renders.
"""

import logging

from authz.runtime.text.printable import bounded

_logger = logging.getLogger("authz")
# Silent until the host configures logging; Python's default would be standard error.
_logger.addHandler(logging.NullHandler())

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR


def event(level: int, name: str, /, **fields: object) -> None:
    """Log one event, with long values shortened; ``fields`` must hold no token, secret or exception text."""
    if _logger.isEnabledFor(level):
        # Shortened here, because records may wait to be written: a path may have as many megabytes as a request.
        fields = {key: bounded(value) if isinstance(value, str) else value for key, value in fields.items()}
        # ascii(): a value that a caller has chosen cannot forge a second log line.
        text = " ".join([name, *(f"{key}={value!a}" for key, value in fields.items())])
        _logger.log(level, "%s", text, extra={"event": name, "fields": fields})


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
