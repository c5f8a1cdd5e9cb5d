"""An HTTP/2 client that keeps to no rules."""

import socket
from collections.abc import Callable, Iterable
from typing import Self

import h2.config
import h2.connection
import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)

from tests.server.serving.serving import PATIENCE

_HEADERS, _RESET, _PING = 1, 3, 6
_CANCEL = 8


class RawClient:
    """A connection on which every frame can be sent, whatever the protocol says; a context manager."""

    def __init__(self, address: str, *, window: int = 65535) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        self._incoming = self._socket.makefile("rb")
        self._connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self._decoder = hpack.Decoder()
        self._connection.initiate_connection()
        self._connection.update_settings({4: window})
        self._socket.sendall(self._connection.data_to_send())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._incoming.close()
        self._socket.close()

    def open(self, number: int, path: str, *, padding: int = 0) -> None:
        """Send the headers of one stream, in as many frames as they need; ``padding`` is in kilobytes."""
        headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "authz")]
        headers += [("content-type", "application/grpc"), ("te", "trailers")]
        headers += [(f"x-{index}", "a" * 1000) for index in range(padding)]
        block = self._connection.encoder.encode(headers, huffman=False)
        parts = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
        frames = [HeadersFrame(number), *(ContinuationFrame(number) for _ in parts[1:])]
        frames[-1].flags.add("END_HEADERS")
        for frame, part in zip(frames, parts, strict=True):
            frame.data = part
            self._socket.sendall(frame.serialize())

    def reset(self, numbers: Iterable[int], path: str) -> None:
        """Open those streams, and reset each at once, all in one write."""
        headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "authz")]
        headers += [("content-type", "application/grpc"), ("te", "trailers")]
        frames: list[Frame] = []
        for number in numbers:
            opening = HeadersFrame(number, self._connection.encoder.encode(headers))
            opening.flags.add("END_HEADERS")
            frames += [opening, RstStreamFrame(number, error_code=_CANCEL)]
        self._socket.sendall(b"".join(frame.serialize() for frame in frames))

    def await_pong(self) -> None:
        """Return when everything that was sent has been taken."""
        self._socket.sendall(PingFrame(0, b"question").serialize())
        while self._frame()[::2] != (_PING, b"question"):
            pass

    def send(self, number: int, data: bytes, *, end: bool = True) -> None:
        frame = DataFrame(number, data)
        if end:
            frame.flags.add("END_STREAM")
        self._socket.sendall(frame.serialize())

    def await_answer(self, number: int) -> None:
        """Return when a frame of that stream has come back."""
        while self._frame()[1] != number:
            pass

    def await_message(self, number: int, wanted: bytes) -> None:
        """Give that stream room, and return when the message has come on it."""
        room = WindowUpdateFrame(number, window_increment=1000)
        self._socket.sendall(room.serialize())
        data = b""
        while wanted not in _messages(data):
            kind, stream, body = self._frame()
            if (kind, stream) == (0, number):
                data += body

    def statuses(self, count: int) -> list[bytes]:
        """Return the gRPC status of so many streams, which end in any order; a reset one has none."""
        self._socket.sendall(WindowUpdateFrame(0, window_increment=1_000_000).serialize())
        found: list[bytes] = []
        while len(found) < count:
            kind, stream, body = self._frame()
            if kind == _HEADERS and stream:
                found += [value for name, value in self._decoder.decode(body, raw=True) if name == b"grpc-status"]
            elif kind == _RESET:
                found.append(b"")
        return found

    def _frame(self) -> tuple[int, int, bytes]:
        header = self._incoming.read(9)
        assert len(header) == 9, "the connection has ended"
        return header[3], int.from_bytes(header[5:]), self._incoming.read(int.from_bytes(header[:3]))

    def until_it_is_cut_off(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError:
            return


def _messages(data: bytes) -> list[bytes]:
    """Return the messages of gRPC that are complete."""
    found = []
    while len(data) >= 5 and len(data) >= (end := 5 + int.from_bytes(data[1:5])):
        found.append(data[5:end])
        data = data[end:]
    return found
