"""Secrets in files, as Kubernetes and Docker mount them."""

from pathlib import Path

from authz.errors import ConfigError


def read_secret(file: str | Path, setting: str) -> str:
    """Return what ``file`` holds, without the blanks around it; empty if there is nothing else.

    Args:
        file: a text file in UTF-8, with or without a byte order mark.
        setting: what to call it in an error.

    Raises:
        ConfigError: it cannot be read; the message names the file and nothing that it holds.

    """
    try:
        return Path(file).read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError):
        raise ConfigError(f"{setting}: {str(file)!a} cannot be read") from None
