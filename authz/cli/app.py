"""What all commands share: their exit codes, what they write, and what they read."""

import contextlib
import select
import sys
from pathlib import Path
from typing import TextIO

from authz.errors import ConfigError
from authz.runtime.configuration import read_secret
from authz.runtime.text.printable import printable

ALLOWED, DENIED, MISUSED, UNDECIDED = 0, 1, 2, 3

# Characters of one line: enough for the longest header or claim.
_MAX_LINE = 16_384


class ReaderGoneError(BaseException):
    """The reader of the output has gone, as `head` does once it has enough; no handler of errors is to see it."""


def flush() -> None:
    """Write what waits to be written.

    Raises:
        ReaderGoneError: no reader is left; a command that waits for more to write asks now and then.

    """
    stream: TextIO | None = sys.stdout
    if stream is None:
        return
    try:
        stream.flush()
    except BrokenPipeError:
        raise ReaderGoneError from None
    # An object in place of standard output, as in tests, has no descriptor; and only POSIX has poll.
    with contextlib.suppress(AttributeError, OSError, ValueError):
        end = select.poll()
        end.register(stream.fileno(), 0)
        if any(state & select.POLLERR for _, state in end.poll(0)):
            raise ReaderGoneError


def say(*lines: str) -> None:
    """Print lines for people; control characters in quoted text never reach the terminal."""
    for line in lines:
        _print(f"{printable(line, _MAX_LINE)}\n", sys.stdout)


def remark(*lines: str) -> None:
    """Print lines for people on standard error, beside what may be for programs."""
    for line in lines:
        _print(f"{printable(line, _MAX_LINE)}\n", sys.stderr)


def complain(error: object, status: int) -> int:
    """Print an error in one line on standard error, and return ``status``."""
    # The error may quote text from a file or an argument.
    remark(f"authz: {' '.join(str(error).split())}")
    return status


def write(document: str) -> None:
    """Print text for programs unchanged: JSON, YAML or the like, which has escapes of its own."""
    _print(document if document.endswith("\n") else f"{document}\n", sys.stdout)


def _print(text: str, stream: TextIO | None) -> None:
    try:
        # There is none where it is closed already as the command starts.
        if stream is not None:
            stream.write(text)
    except BrokenPipeError:
        raise ReaderGoneError from None


def standard_input() -> str:
    """Return all of standard input."""
    # As bytes, so that the locale does not matter; what is not UTF-8 cannot be a token.
    return sys.stdin.buffer.read().decode("utf-8", "replace")


def secret_in(file: str | Path, setting: str) -> str:
    """Return the token or the secret in a file, or in standard input where the name is ``-``."""
    return standard_input().strip() if str(file) == "-" else read_secret(file, setting)


def header_of(text: str) -> tuple[str, str]:
    """Return the name, in lower case, and the value of a header that an option gives as ``NAME:VALUE``."""
    name, colon, value = text.partition(":")
    name = name.strip().lower()
    if not name.isascii() or not name.isprintable() or not name or not colon:
        raise ConfigError("header: must be NAME:VALUE, such as --header x-tier:gold")
    return name, value.strip()


def version() -> str:
    """Return the version of the package."""
    from importlib import metadata  # noqa: PLC0415 - late: only --version needs it

    return metadata.version("grpc-org-authz")
