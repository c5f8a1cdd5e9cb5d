"""HTTP/1.1 byte by byte: a client that sends what no library would, and an upstream that says what it saw."""

import json
import socket
import socketserver
import threading
from collections.abc import Iterable
from typing import NamedTuple, Self

from tests.programs import PATIENCE

Pairs = list[tuple[str, str]]


class Response(NamedTuple):
    """An answer; names of headers are in lower case."""

    status: int
    headers: Pairs
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def one(self, name: str) -> str:
        """Return the value of a header that is there once, or an empty string."""
        values = self.values(name)
        assert len(values) < 2, f"{name} is there {len(values)} times"
        return "".join(values)

    @property
    def seen(self) -> "Seen":
        """What the upstream saw that answered."""
        said = json.loads(self.body)
        return Seen(said["line"], [(name, value) for name, value in said["headers"]], said["body"])


class Seen(NamedTuple):
    """A request as the upstream saw it; names of headers are as they came."""

    line: str
    headers: Pairs
    body: str

    def values(self, *names: str) -> list[str]:
        """Return the values, but empty ones, of all headers that some server reads as one of ``names``."""
        return [value for name, value in self.headers if value and _plain(name) in names]


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())


class Client:
    """A connection; a context manager."""

    def __init__(self, address: str) -> None:
        if address.startswith("unix:"):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            self._socket = socket.create_connection((host, int(port)))
        self._socket.settimeout(PATIENCE)
        self._read = b""

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def end(self) -> None:
        """Send no more."""
        self._socket.shutdown(socket.SHUT_WR)

    def read(self, *, has_no_body: bool = False) -> Response:
        """Return the next answer."""
        head = self._until(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        response = Response(int(lines[0].split(" ")[1]), headers, b"")
        if has_no_body:
            return response
        if response.values("transfer-encoding"):
            return response._replace(body=self._chunks())
        return response._replace(body=self._exactly(int(response.one("content-length") or 0)))

    def rest(self) -> bytes:
        """Return what comes until the other end closes the connection."""
        read, self._read = self._read, b""
        try:
            while more := self._socket.recv(65_536):
                read += more
        except ConnectionError:
            pass
        return read

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self._until(b"\r\n"), 16):
            body += self._exactly(size)
            self._until(b"\r\n")
        return body

    def _until(self, end: bytes) -> bytes:
        while end not in self._read:
            self._more()
        found, _, self._read = self._read.partition(end)
        return found

    def _exactly(self, count: int) -> bytes:
        while len(self._read) < count:
            self._more()
        found, self._read = self._read[:count], self._read[count:]
        return found

    def _more(self) -> None:
        more = self._socket.recv(65_536)
        assert more, f"the connection was closed after {self._read!r}"
        self._read += more


def head(target: str = "/", *headers: str, verb: str = "GET", host: str = "api.test") -> bytes:
    """Return the head of a request, with every byte as it is given."""
    lines = [f"{verb} {target} HTTP/1.1", *([f"Host: {host}"] if host else []), *headers]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def ask(address: str, target: str = "/", *headers: str, verb: str = "GET", body: bytes = b"") -> Response:
    """Make one request and return the answer."""
    more = [f"Content-Length: {len(body)}"] if body else []
    with Client(address) as client:
        client.send(head(target, *headers, *more, "Connection: close", verb=verb) + body)
        return client.read(has_no_body=verb == "HEAD")


class Upstream:
    """A server that answers every request with what it saw; a context manager.

    Attributes:
        count: how many requests it has had.

    """

    def __init__(self) -> None:
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while head := list(_head(self.rfile)):
                    outer.count += 1
                    line, *lines = head
                    pairs = [(name, value.strip()) for name, _, value in (one.partition(":") for one in lines)]
                    length = next((int(value) for name, value in pairs if name.lower() == "content-length"), 0)
                    body = self.rfile.read(length).decode("latin-1")
                    seen = json.dumps({"line": line, "headers": pairs, "body": body}).encode()
                    kind = b"content-type: application/json\r\n"
                    sent = b"" if line.startswith("HEAD") else seen
                    self.wfile.write(b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (kind, len(seen), sent))

        self.count = 0
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _head(lines: Iterable[bytes]) -> Iterable[str]:
    for line in lines:
        text = line.decode("latin-1").rstrip("\r\n")
        if not text:
            return
        yield text
