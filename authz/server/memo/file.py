"""The script in a file that Envoy watches: the simple way, without a connection."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from authz.server.memo import resource


class ScriptFile:
    """Write the script of every generation; Envoy reads it when the file is replaced.

    While no server writes it, no answer is remembered for longer than the last one allowed.

    Args:
        path: of the file, in a folder that only this user may reach.
        source: makes the script of a generation.

    """

    def __init__(self, path: Path, source: Callable[[str], str]) -> None:
        self._path, self._source = path, source

    def publish(self, generation: str) -> None:
        """Replace the file, in one step.

        Raises:
            OSError: that cannot be done now.

        """
        beside = self._path.parent / f".{secrets.token_hex(4)}"
        content = resource.file_content(self._source(generation), generation or "none")
        try:
            number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(number, "w", encoding="utf-8") as file:  # noqa: PTH123 - Path.open takes no number
                file.write(content)
            beside.replace(self._path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
