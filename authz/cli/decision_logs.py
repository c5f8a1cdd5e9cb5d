"""Decision logs that a command reads."""

import contextlib
import gzip
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from authz.errors import ConfigError


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a decision log for reading: a file, one that is packed if its name ends in .gz, or - for standard input.

    Raises:
        ConfigError: it cannot be read, which may show later than at the begin of the block.

    """
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    try:
        with cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb") as log:
            yield log
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or "it is damaged, or not packed by gzip"
        raise ConfigError(f"decisions: {str(path)!a} cannot be read ({why})") from None
