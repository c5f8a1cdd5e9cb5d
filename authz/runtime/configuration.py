"""What configuration refers to outside the process: packages of an extra, the system, and files that hold a secret."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from authz.errors import ConfigError


@contextlib.contextmanager
def extra(
    name: str, needs: str, *, package: str = "", error: Callable[[str], Exception] = ConfigError
) -> Iterator[None]:
    """Import a package of an extra in the block, and say what to install where it is missing.

    Args:
        name: the extra.
        needs: what needs it, in the words that the message begins with.
        package: the package, where a missing one that it needs itself is to be raised as it is.
        error: makes the error of the message.

    Raises:
        ConfigError: the package is not installed.

    """
    try:
        yield
    except ModuleNotFoundError as missing:
        if package and (missing.name or "").partition(".")[0] != package:
            raise
        raise error(f"{needs}: pip install 'grpc-org-authz[{name}]'") from None


def check_posix(what: str) -> None:
    """Check that this system is POSIX, as Linux and macOS are and Windows is not.

    Args:
        what: what needs it, a setting or a command.

    Raises:
        ConfigError: it is not.

    """
    if not hasattr(os, "fork"):
        raise ConfigError(f"{what}: works on Linux and macOS only; on Windows use WSL 2 or a container")


def read_secret(file: str | Path, setting: str) -> str:
    """Return what ``file`` holds, as Kubernetes and Docker mount it, without the blanks around it; it may be empty.

    Args:
        file: a text file in UTF-8, with or without a byte order mark.
        setting: what to call it in an error.

    Raises:
        ConfigError: it cannot be read; the message names the file and none of its content.

    """
    try:
        return Path(file).read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError):
        raise ConfigError(f"{setting}: {str(file)!a} cannot be read") from None
