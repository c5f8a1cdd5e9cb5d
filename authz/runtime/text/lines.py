"""Whole lines on a file, a pipe or a terminal: one that could be written in part only spoils no other."""

import os
import select
import stat

_BREAK = b"\n"


class Lines:
    """Append lines to a file, for as long as it takes: call it where nothing else waits.

    Where the last line has no end, by whatever fault, the next one begins anew. So after a disk was full there
    may be a part of a line, or a line without anything, and both are to be passed over.

    Args:
        file: the descriptor.

    Attributes:
        is_torn: whether the last line has no end.

    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._has_failed = False
        self.is_torn = False
        self.is_torn = self._ends_within_a_line()

    def write(self, lines: bytes | bytearray = b"") -> int:
        """Write ``lines``, each of which ends with a line break, and return how many of them are lost."""
        if self._has_failed:
            # Another process may have ended the line meanwhile, or begun one.
            self.is_torn = self._ends_within_a_line()
        left = bytearray(_BREAK if self.is_torn else b"") + lines
        try:
            while left:
                written = self._write(left)
                self.is_torn = not left.endswith(_BREAK, 0, written)
                del left[:written]
        except OSError:
            self._has_failed = True
            # A break that comes first ends a line that is there but for it, or is not one of these.
            return left.count(_BREAK) - left.startswith(_BREAK)
        self._has_failed = False
        return 0

    def _write(self, text: bytearray) -> int:
        while True:
            try:
                return os.write(self._file, text)
            except BlockingIOError:
                # Another process that shares this pipe has made it so that it does not wait.
                waiting = select.poll()
                waiting.register(self._file, select.POLLOUT)
                waiting.poll()

    def _ends_within_a_line(self) -> bool:
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            return self.is_torn
        try:
            # Opened once more, for it may be open for writing only.
            reader = os.open(f"/dev/fd/{self._file}", os.O_RDONLY)
        except OSError:
            return self.is_torn
        try:
            size = os.fstat(reader).st_size
            return size > 0 and os.pread(reader, 1, size - 1) != _BREAK
        finally:
            os.close(reader)
