"""Reads a file with one organization on each line (JSON lines) in pieces, so that it may be larger than a document."""

import json
import os
import stat
from collections.abc import Iterator
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from authz.errors import ConfigError
from authz.policy.text.schema import check_organization
from authz.policy.text.usual import Usual
from authz.runtime import watch
from authz.runtime.text.document import Document, Fault, unique

MAX_BYTES = 512 * 2**20
"""How large the file may be."""

MAX_LINE = 64 * 2**10
"""How many bytes a line may have."""

# After each piece other threads go first.
_PIECE = 16 * 2**10
_MARK = b"\xef\xbb\xbf"
_decode = json.JSONDecoder(object_pairs_hook=unique).decode


class Lines:
    """The organizations of a file.

    Args:
        source: the path of the file, which errors name.

    Attributes:
        size: how many bytes the file has.

    Raises:
        ConfigError: it cannot be read, or is too large.

    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._usual = Usual()
        watch.note(source)
        try:
            found = Path(source).stat()
        except (OSError, ValueError) as error:
            raise _unreadable(source, error) from error
        self.size, self._state = found.st_size, _state_of(found)
        # A pipe would be waited for.
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{source}: is no regular file")
        if self.size > MAX_BYTES:
            raise ConfigError(f"{source}: longer than {MAX_BYTES // 2**20} MiB")

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield each organization with the number of its line, checked against the schema.

        Raises:
            ConfigError: the file cannot be read, or a line is not an organization; the message names the line.

        """
        for number, line in enumerate(self._lines(), 1):
            if line and not line.isspace():
                yield number, self._organization(number, line)

    def error(self, number: int, fault: Fault) -> ConfigError:
        """Return the error for a fault of a line."""
        return Document(None, f"{self._source}:{number}").error(fault)

    def _organization(self, number: int, line: bytes) -> dict[str, Any]:
        if len(line) > MAX_LINE:
            raise self.error(number, Fault(f"longer than {MAX_LINE // 2**10} KiB"))
        try:
            text = line.decode()
            usual = self._usual.read(text)
            if usual is not None:
                return usual
            given: dict[str, Any] = _decode(text)
            check_organization(given)
        except Fault as fault:
            raise self.error(number, fault) from None
        except UnicodeDecodeError as error:
            raise self.error(number, Fault("is not UTF-8 text")) from error
        except JSONDecodeError as error:
            raise ConfigError(f"{self._source}:{number}:{error.colno}: not JSON: {error.msg}") from error
        except (RecursionError, ValueError) as error:
            raise self.error(number, Fault("nested too deeply, or a number too long")) from error
        self._usual.note(text, given)
        return given

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines; one that is too long may be cut, but never to a length that it may have."""
        rest = b""
        for number, piece in enumerate(self._pieces()):
            *lines, rest = (rest + (piece if number else piece.removeprefix(_MARK))).split(b"\n")
            yield from lines
            if len(rest) > MAX_LINE:
                break
        yield rest

    def _pieces(self) -> Iterator[bytes]:
        # No more than there was: what is written meanwhile is another change.
        left = self.size
        try:
            with Path(self._source).open("rb", buffering=0) as file:
                while piece := file.read(min(_PIECE, left)):
                    left -= len(piece)
                    yield piece
                # A part of a list says that all others are strangers, and that none of them is suspended.
                is_whole = _state_of(os.fstat(file.fileno())) == self._state
        except OSError as error:
            raise _unreadable(self._source, error) from error
        if not is_whole:
            raise ConfigError(f"{self._source}: has changed while it was read; read it again")


def _state_of(found: os.stat_result) -> tuple[int, ...]:
    # Nothing that changes when a new file takes the place of this one, which is then read to its end.
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _unreadable(source: str, error: Exception) -> ConfigError:
    return ConfigError(f"{source}: cannot be read ({getattr(error, 'strerror', None) or 'no such file'})")
