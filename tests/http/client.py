"""What is sent to a server byte by byte, and what comes back."""

import base64
import json
import socket
from dataclasses import dataclass
from typing import Any, Self

from google.rpc.error_details_pb2 import ErrorInfo

from tests.doubles import PATIENCE

Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class Reply:
    """An answer; ``is_whole`` unless its body broke off."""

    status: int
    headers: Headers
    body: bytes
    is_whole: bool = True

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The machine-readable reason of a refusal, or ``""``."""
        try:
            [detail] = [each for each in self.json["details"] if each["type"] == "google.rpc.ErrorInfo"]
        except (KeyError, TypeError, ValueError):
            return ""
        return ErrorInfo.FromString(_unpadded(detail["value"])).reason

    @property
    def ours(self) -> tuple[int, Headers, bytes]:
        """All of a refusal that is the door's, and not the server's."""
        names = ("www-authenticate", "retry-after", "content-type", "content-length", "grpc-status", "grpc-message")
        return self.status, sorted(entry for entry in self.headers if entry[0] in names), self.body


def _unpadded(text: str) -> bytes:

    return base64.b64decode(text + "=" * (-len(text) % 4))


class Connection:
    """A connection to a server on loopback."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()

    def ask(self, target: str, headers: Headers, *, verb: str = "GET", body: bytes = b"") -> None:
        """Send a request as it is, without correcting anything."""
        lines = [f"{verb} {target} HTTP/1.1", "host: localhost", *[f"{name}: {value}" for name, value in headers]]
        if body or verb == "POST":
            lines.append(f"content-length: {len(body)}")
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def head(self) -> tuple[int, Headers]:
        """Read the beginning of an answer."""
        status = int(self._file.readline().split(b" ", 2)[1])
        headers: Headers = []
        while line := self._file.readline().rstrip(b"\r\n"):
            name, _, value = line.decode("latin-1").partition(":")
            headers.append((name.lower(), value.strip()))
        return status, headers

    def part(self) -> bytes | None:
        """Read one part of a body that comes in parts: empty at its end, ``None`` if it breaks off."""
        size = self._file.readline()
        if not size.endswith(b"\n"):
            return None
        part = self._file.read(int(size, 16))
        self._file.readline()
        return part

    def rest(self, size: int = -1) -> bytes:
        """Read so many bytes, or all that come until the server closes the connection."""
        return self._file.read(size)

    def reply(self, *, verb: str = "GET") -> Reply:
        """Read a whole answer."""
        status, headers = self.head()
        names = dict(headers)
        if verb == "HEAD" or status in (204, 304):
            return Reply(status, headers, b"")
        if names.get("transfer-encoding") == "chunked":
            parts: list[bytes] = []
            while part := self.part():
                parts.append(part)
            return Reply(status, headers, b"".join(parts), part is not None)
        length = int(names["content-length"]) if "content-length" in names else -1
        body = self._file.read(length)
        return Reply(status, headers, body, length in (-1, len(body)))


def ask(port: int, target: str, headers: Headers = [], *, verb: str = "GET", body: bytes = b"") -> Reply:  # noqa: B006 - read only
    """Send one request on a connection of its own, and return the answer."""
    with Connection(port) as connection:
        connection.ask(target, [*headers, ("connection", "close")], verb=verb, body=body)
        return connection.reply(verb=verb)


def bearer(token: str) -> Headers:
    return [("authorization", f"Bearer {token}")]
