"""The log of this package's commands: JSON lines or, by structlog, text, on standard error.

A separate thread writes, so that no caller waits for a terminal, a disk or a pipe.
Records that any caller can cause are written a bounded number of times, and
otherwise only counted. A record is one line without long values, and as text it has
no control characters.
"""

import contextlib
import copy
import json
import logging
import logging.handlers
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, TextIO

from authz.runtime import telemetry
from authz.runtime.configuration import extra
from authz.runtime.telemetry import LogSampling
from authz.runtime.text.lines import Lines
from authz.runtime.text.printable import bounded, printable
from authz.runtime.threads import restarting

LogFormat = Literal["auto", "json", "text"]

# Records that may wait to be written; more are dropped, and counted.
_CAPACITY = 1000
_END_SECONDS = 2.0

_LEAST_SECRET = 8


def configure(level: str, log_format: LogFormat = "auto", **always: object) -> Callable[[], None]:
    """Send every log record of this process to standard error.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        log_format: ``json``, ``text``, or ``auto`` for text on a terminal and JSON elsewhere.
        always: fields of every record.

    Returns:
        A function to call at the end: it writes the rest, within at most two seconds.

    """
    is_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    formatter = partial(_text, _console(), always) if is_text else partial(_json, always)
    waiting: queue.Queue[Any] = queue.Queue(_CAPACITY)
    handler, writer = _Handler(waiting), _Writer(waiting, formatter)
    telemetry.sample(LogSampling())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # They log every URL that they request, and every change of a file.
    for name in ("httpx2", "watchfiles"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return partial(_end, writer)


def _end(writer: "_Writer") -> None:
    telemetry.sample(None)
    writer.end()


class _Handler(logging.handlers.QueueHandler):
    """Gives records to the thread that writes; drops them if that does not keep up."""

    def __init__(self, waiting: "queue.Queue[Any]") -> None:
        super().__init__(waiting)
        self._dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Return ``record`` without arguments and the frames of an exception, which it would keep alive."""
        if hasattr(record, "fields"):
            return record
        record = copy.copy(record)
        message, record.args = _message(record), None
        error = record.exc_info[1] if record.exc_info else None
        record.fields = {}
        if error is not None:
            # Without the text of the exception or of its frames: they may hold a token.
            message = _without_text(error, message)
            record.fields = telemetry.cause(error)
        record.msg = bounded(message)
        record.exc_info = record.exc_text = record.stack_info = None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        if self._dropped:
            record.fields = {**getattr(record, "fields", {}), "dropped": self._dropped}
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1
        else:
            self._dropped = 0


class _Writer:
    """The thread that writes what the queue holds."""

    def __init__(self, waiting: "queue.Queue[Any]", formatter: Callable[[logging.LogRecord], str]) -> None:
        self._waiting, self._formatter = waiting, formatter
        self._write_line = _writing(sys.stderr)
        self._lost = 0
        self._thread = threading.Thread(target=restarting(self._write_on), name="authz-log", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Write the rest, unless the output is blocked."""
        deadline = time.monotonic() + _END_SECONDS
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=_END_SECONDS)
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _write_on(self) -> None:
        while (record := self._waiting.get()) is not None:
            self._write(record)

    def _write(self, record: logging.LogRecord) -> None:
        fields = getattr(record, "fields", {})
        dropped = fields.get("dropped", 0) + self._lost
        # Counted as lost until it is written, with all the records whose loss it reports.
        self._lost = dropped + 1
        if dropped:
            record.fields = {**fields, "dropped": dropped}
        try:
            line = self._formatter(record)
        except Exception:  # noqa: BLE001 - a record may hold anything; the next one reports that it is missing
            return
        if not self._write_line(f"{line}\n"):
            self._lost = 0


def _writing(stream: TextIO) -> Callable[[str], int]:
    """Return a function that writes a line to ``stream``, and returns how many are lost."""
    try:
        lines = Lines(stream.fileno())
    except OSError:
        # The host process has replaced standard error by an object without a descriptor.
        return lambda line: stream.write(line) and 0
    # Without its buffer, which would keep what it could not write, and fail again.
    return lambda line: lines.write(line.encode(stream.encoding, "backslashreplace"))


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - a mistake of another library; its record must be written all the same
        return str(record.msg)


def _without_text(error: BaseException, message: str) -> str:
    for text in (repr(error), str(error)):
        # Shorter text holds no secret, and may be part of any word.
        if len(text) >= _LEAST_SECRET:
            message = message.replace(text, "[…]")
    return message


def _console() -> Callable[[Any, str, dict[str, Any]], str]:
    # Late: it takes a tenth of a second to load, and only text needs it.
    with extra("server", "log_format: text needs the extra 'server'", package="structlog"):
        from structlog.dev import ConsoleRenderer  # noqa: PLC0415

    return ConsoleRenderer(colors=sys.stderr.isatty())


def _text(
    render: Callable[[Any, str, dict[str, Any]], str], always: Mapping[str, object], record: logging.LogRecord
) -> str:
    return render(None, "", _fitting(printable, _event(always, record)))


def _json(always: Mapping[str, object], record: logging.LogRecord) -> str:
    # Without printable(): JSON has escapes of its own.
    return json.dumps(_fitting(bounded, _event(always, record)))


def _event(always: Mapping[str, object], record: logging.LogRecord) -> dict[str, object]:
    # The time of the event, not of its writing.
    created = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return {
        "event": getattr(record, "event", None) or record.getMessage(),
        "level": record.levelname.lower(),
        "timestamp": f"{created}.{record.msecs:03.0f}Z",
        **always,
        **getattr(record, "fields", {}),
    }


def _fitting(show: Callable[[str], str], value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {show(str(key)): _fitting(show, part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_fitting(show, part) for part in value]
    return show(value if isinstance(value, str) else repr(value))
