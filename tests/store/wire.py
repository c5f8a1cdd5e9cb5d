"""The way to a store: fakes that answer what they like, and a proxy whose connections are cut or go silent."""

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from typing import Self

from tests.loopback import Connection


class _Listener:
    """A port of loopback, each of whose connections gets a thread; a context manager, in which it is the port."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        # Closing alone does not wake a thread that accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._handle, args=(raw,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _handle(self, raw: socket.socket) -> None:
        with raw, contextlib.suppress(OSError):
            self._serve(raw)

    def _serve(self, raw: socket.socket) -> None:
        raise NotImplementedError


class Fake(_Listener):
    """A server that does the same with every connection, once it has been asked something."""

    def __init__(self, serve: Callable[[Connection], None]) -> None:
        super().__init__()
        self._answer = serve

    def _serve(self, raw: socket.socket) -> None:
        raw.recv(65536)
        self._answer(Connection(raw, self._over))


class Proxy(_Listener):
    """Carries bytes between a port and the Unix socket of a store.

    Attributes:
        path: of the socket, for connections to come.

    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self._open: set[socket.socket] = set()
        self._flows = threading.Event()
        self._flows.set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def cut(self) -> int:
        """Break off every connection, and return how many there were."""
        found = list(self._open)
        for raw in found:
            with contextlib.suppress(OSError):
                raw.shutdown(socket.SHUT_RDWR)
        return len(found)

    def part(self) -> None:
        """Let nothing through, neither an answer nor a refusal, until :meth:`heal`."""
        self._flows.clear()

    def heal(self) -> None:
        self._flows.set()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.heal()
        self.cut()
        super().__exit__()

    def _serve(self, raw: socket.socket) -> None:
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(self.path)
            ends = {raw: other, other: raw}
            self._open.add(raw)
            try:
                while not self._over.is_set():
                    ready, _, _ = select.select(list(ends), [], [], 0.5)
                    for end in ready:
                        data = end.recv(65536)
                        self._flows.wait()
                        if not data:
                            return
                        ends[end].sendall(data)
            finally:
                self._open.discard(raw)
