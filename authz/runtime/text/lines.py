"""Writes whole lines to a file, a pipe or a terminal: a line that was written only in part spoils no other."""

import os
import select
import stat

_BREAK = b"\n"


class Lines:
    """Append lines to a file; it may block for long, so call it on a thread of its own.

    If the last line is not complete, for whatever reason, the next one begins with a line break. So after a full disk
    there may be a part of a line, or an empty line; readers must skip both.

    Args:
        file: the descriptor.

    Attributes:
        is_torn: whether the last line is incomplete.

    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._has_failed = False
        self.is_torn = False
        self.is_torn = self._ends_within_a_line()

    def write(self, lines: bytes | bytearray = b"") -> int:
        """Write ``lines``, each with a line break at its end, and return how many of them are lost."""
        if self._has_failed:
            # Another process may have completed the line meanwhile, or begun one.
            self.is_torn = self._ends_within_a_line()
        left = bytearray(_BREAK if self.is_torn else b"") + lines
        try:
            while left:
                written = self._write(left)
                self.is_torn = not left.endswith(_BREAK, 0, written)
                del left[:written]
        except OSError:
            self._has_failed = True
            # A leading break completes a line whose text was written, or is the break before these lines.
            return left.count(_BREAK) - left.startswith(_BREAK)
        self._has_failed = False
        return 0

    def _write(self, text: bytearray) -> int:
        while True:
            try:
                return os.write(self._file, text)
            except BlockingIOError:
                # Another process that shares this pipe has made it non-blocking.
                waiting = select.poll()
                waiting.register(self._file, select.POLLOUT)
                waiting.poll()

    def _ends_within_a_line(self) -> bool:
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            return self.is_torn
        try:
            # Opened once more, because it may be open only for writing.
            reader = os.open(f"/dev/fd/{self._file}", os.O_RDONLY)
        except OSError:
            return self.is_torn
        try:
            size = os.fstat(reader).st_size
            return size > 0 and os.pread(reader, 1, size - 1) != _BREAK
        finally:
            os.close(reader)
