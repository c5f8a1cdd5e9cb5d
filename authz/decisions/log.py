"""Decisions as JSON lines, written by a separate thread, so that deciding never waits for a disk or a pipe."""

import contextlib
import json
import os
import random
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Literal

from authz.decisions.decision import Decision, Record
from authz.errors import ConfigError
from authz.runtime import fork, telemetry
from authz.runtime.text.lines import Lines
from authz.runtime.threads import restarting

Wanted = Literal["all", "denied"]

CAPACITY = 10_000
"""How many decisions may wait to be written; more are dropped, and counted."""

MAX_BYTES = 33_554_432
"""How many bytes of memory they may take together."""

# What a pipe takes in one piece (POSIX: PIPE_BUF), so that the lines of several workers do not mix.
_PIECE = getattr(select, "PIPE_BUF", 512)
# Long enough to write many at a time, short enough for a reader who follows the log.
_PAUSE = 0.05
# How often to try to finish a line that was written in part, so that it does not spoil lines of other processes.
_MEND_SECONDS = 1.0
_END_SECONDS = 2.0


class DecisionLog:
    """Write decisions as JSON lines; an observer of :class:`authz.Authorizer`.

    No line holds a token, or any claims but the caller, the scopes, and the ids of token and key.

    Args:
        wanted: ``all`` decisions, or only ``denied``: those that did not allow the call.
        path: a file to append to; by default standard output.
        capacity: how many may wait to be written.
        max_bytes: how many bytes of memory they may take together.
        allowed_share: how many of the decisions that allow a call are written, from 0 to 1, chosen at random; those
            that refuse one all are. A program that counts lines must allow for it.
        draw: returns a random number from 0 up to 1.

    Raises:
        ConfigError: the file cannot be opened, or ``allowed_share`` is not between 0 and 1.

    """

    def __init__(
        self,
        wanted: Wanted,
        path: str | None = None,
        *,
        capacity: int = CAPACITY,
        max_bytes: int = MAX_BYTES,
        allowed_share: float = 1.0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        if not 0 <= allowed_share <= 1:
            raise ConfigError("allowed_share: give a number from 0 to 1")
        # Most logs leave out nothing, and draw nothing.
        self._allowed_share = allowed_share if wanted == "all" else 0.0
        self._draw = draw
        self._path = path
        self._file = _open(path)
        self._lines = Lines(self._file)
        self._capacity, self._max_bytes = capacity, max_bytes
        self.after_fork()
        fork.register(self)

    def after_fork(self) -> None:
        """Forget waiting decisions, which the parent writes, and the thread, which is the parent's."""
        self._lock = threading.Lock()
        self._waiting: deque[Record] = deque()
        self.waiting_bytes = 0
        """How many bytes of memory the waiting decisions take."""
        self.dropped = self._told = 0
        """How many this process has dropped so far, because the writer was too slow or could not write."""
        # How many no longer wait, but are not written yet.
        self._taken = 0
        self._awake, self._end, self._turn = threading.Event(), threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, decision: Decision) -> None:
        """Take in one decision; never waits."""
        share = self._allowed_share
        if share < 1 and decision.refusal is None and (not share or self._draw() >= share):
            return
        # Only the record waits, not the call: its headers may be large and hold the token.
        record = decision.record()
        size = record.size
        with self._lock:
            if len(self._waiting) >= self._capacity or self.waiting_bytes + size > self._max_bytes:
                self.dropped += 1
                return
            self._waiting.append(record)
            self.waiting_bytes += size
        if not self._awake.is_set():
            self._rouse()

    def reopen(self) -> None:
        """Open the file anew after a rotation has moved it; takes effect with the next lines."""
        if self._path is None:
            return
        # On the thread that writes: no line is split between two files, or ends in one that reuses the descriptor.
        self._turn.set()
        # If no thread can be started, the next decision tries again.
        with contextlib.suppress(RuntimeError):
            self._rouse()

    def close(self) -> None:
        """Write waiting decisions, for at most two seconds."""
        self._end.set()
        self._awake.set()
        if self._thread is not None:
            self._thread.join(_END_SECONDS)

    def _rouse(self) -> None:
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=restarting(self._write_on), name="authz-decisions", daemon=True)
                thread.start()
                # Only now: if no thread can be started, the next decision must try again.
                self._thread = thread
        self._awake.set()

    def _write_on(self) -> None:
        while not self._end.is_set():
            if not self._waiting:
                # If the loop is restarted, decisions may be waiting already.
                self._awake.wait(_MEND_SECONDS if self._lines.is_torn else None)
            # More may come meanwhile; together they are cheaper to write.
            self._end.wait(_PAUSE)
            self._awake.clear()
            self._write_waiting()
        self._write_waiting()

    def _write_waiting(self) -> None:
        if self._turn.is_set():
            self._turn.clear()
            self._open_anew()
        if self._lines.is_torn:
            self._lines.write()
        # Taken by a run of this loop that failed before it wrote them.
        self._lose(self._taken)
        self._taken = 0
        piece = bytearray()
        while self._waiting:
            with self._lock:
                record = self._waiting.popleft()
                self.waiting_bytes -= record.size
            self._taken += 1
            line = json.dumps(record.fields(), separators=(",", ":")).encode() + b"\n"
            if piece and len(piece) + len(line) > _PIECE:
                self._write(piece)
                piece = bytearray()
            piece += line
        if piece:
            self._write(piece)
        if self.dropped > self._told:
            telemetry.event(telemetry.WARNING, "decisions_dropped", count=self.dropped - self._told)
            self._told = self.dropped

    def _write(self, piece: bytearray) -> None:
        # The disk may be full, or a pipe may lack a reader: that must not affect decisions.
        self._lose(self._lines.write(piece))
        self._taken -= piece.count(b"\n")

    def _lose(self, count: int) -> None:
        if count:
            with self._lock:
                self.dropped += count

    def _open_anew(self) -> None:
        try:
            self._file, old = _open(self._path), self._file
        except ConfigError:
            telemetry.event(telemetry.ERROR, "decision_log_failed", path=self._path)
            return
        self._lines = Lines(self._file)
        os.close(old)


def _open(path: str | None) -> int:
    if path is None:
        return sys.stdout.fileno()
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise ConfigError(f"decision_log_file: {path!a} cannot be opened ({error.strerror})") from error
