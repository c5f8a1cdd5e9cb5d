"""HTTP/2 frame by frame, for what no gRPC client sends."""

import socket
from collections.abc import Sequence
from typing import Any

import h2.config
import h2.connection
import h2.events
import hpack

from tests.interceptors.servers import PATIENCE

Headers = Sequence[tuple[bytes, bytes]]


class PlainEncoder(hpack.Encoder):
    """Writes strings as they are: Huffman codes of 200 kB take seconds."""

    def encode(self, headers: Any, huffman: bool = False) -> bytes:  # noqa: FBT001, FBT002 - as its base has it
        return super().encode(headers, huffman)


class Wire:
    """An HTTP/2 connection, spoken by hand; it never acknowledges the server's settings."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), PATIENCE)
        config = h2.config.H2Configuration(
            header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self._http = h2.connection.H2Connection(config)
        self._http.encoder = PlainEncoder()
        self._http.initiate_connection()

    def close(self) -> None:
        self._socket.close()

    def send(
        self,
        name: str,
        headers: Headers,
        *,
        body: bytes | None = None,
        content_type: bytes = b"application/grpc",
        trailers: Headers = (),
    ) -> int:
        """Begin a call, with one message and what follows it, or without an end; return its stream."""
        stream = self._http.get_next_available_stream_id()
        request = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", name.encode()),
            (b":authority", b"localhost"),
            (b"content-type", content_type),
            (b"te", b"trailers"),
            *headers,
        ]
        self._http.send_headers(stream, request)
        if body is not None:
            self._http.send_data(stream, body, end_stream=not trailers)
        if trailers:
            self._http.send_headers(stream, trailers, end_stream=True)
        self._socket.sendall(self._http.data_to_send())
        return stream

    def receive(self, stream: int) -> dict[bytes, bytes]:
        """Return the headers and trailers of the answer; it has none if the stream is reset at once."""
        answer: dict[bytes, bytes] = {}
        while b"grpc-status" not in answer:
            data = self._socket.recv(65536)
            assert data, "the server has closed the connection"
            for event in self._http.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    assert event.stream_id == stream
                    answer |= dict(event.headers)
                if isinstance(event, h2.events.StreamReset | h2.events.StreamEnded):
                    return answer
        return answer

    def status_of(self, verb: str, path: str, headers: Sequence[tuple[str, str]]) -> int:
        """Make a plain HTTP request by any HTTP method, without a body; return its status."""
        # The extended CONNECT needs the server's word that it takes one (RFC 8441 section 3).
        self._socket.sendall(self._http.data_to_send())
        self._http.receive_data(self._socket.recv(65536))
        stream = self._http.get_next_available_stream_id()
        named = [(":method", verb), *[each for each in headers if each[0][0] == ":"]]
        named += [(":scheme", "http"), (":path", path), (":authority", "localhost")]
        plain = [(name.lower(), value) for name, value in headers if name[0] != ":"]
        request = [(name.encode(), value.encode()) for name, value in (*named, *plain)]
        self._http.send_headers(stream, request, end_stream=verb != "CONNECT")
        self._socket.sendall(self._http.data_to_send())
        while True:
            data = self._socket.recv(65536)
            assert data, "the server has closed the connection"
            for event in self._http.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    return int(dict(event.headers)[b":status"])
