"""Real servers on loopback that misbehave as no HTTP framework would."""

import contextlib
import ipaddress
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

OK = b"HTTP/1.1 200 OK\r\nconnection: close\r\n"
DRIP = 0.02
"""Seconds between two bytes of a server that drips."""


class Connection:
    """A client that has sent its request."""

    def __init__(self, raw: socket.socket, over: threading.Event) -> None:
        self._raw = raw
        self._over = over

    def send(self, *parts: bytes) -> None:
        self._raw.sendall(b"".join(parts))

    def answer(self, body: bytes, *headers: str, status: str = "200 OK") -> None:
        """Send a whole, honest response."""
        lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers, "", ""]
        self.send("\r\n".join(lines).encode(), body)

    def drip(self, data: bytes) -> None:
        """Send a byte at a time, for as long as the test lasts."""
        for byte in data:
            if self._over.wait(DRIP):
                return
            self.send(bytes([byte]))

    def say_nothing(self) -> None:
        """Keep the client waiting for as long as the test lasts."""
        self._over.wait()

    def join(self, host: str, port: int) -> None:
        """Carry bytes to and from another server until either of them ends, as a proxy does after CONNECT."""
        with socket.create_connection((host, port)) as other:
            ends = {self._raw: other, other: self._raw}
            while True:
                ready, _, _ = select.select(list(ends), [], [])
                for end in ready:
                    data = end.recv(65536)
                    if not data:
                        return
                    ends[end].sendall(data)

    def reset(self) -> None:
        """Break the connection off, as a crash does."""
        self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Loopback:
    """A server that reads a request, notes it, and does with the connection whatever ``serve`` does."""

    def __init__(self, serve: Callable[[Connection], None], *, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.asked = threading.Event()
        self._serve = serve
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]

    @property
    def url(self) -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}/oauth2/jwks"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        # Closing alone does not wake a thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._handle, args=(raw,))
            self._threads.append(thread)
            thread.start()

    def _handle(self, raw: socket.socket) -> None:
        # Clients that give up are what most of these tests are about.
        with raw, contextlib.suppress(OSError):
            if self._tls is not None:
                raw = self._tls.wrap_socket(raw, server_side=True)
            with raw:
                self.requests.append(_read_request(raw))
                self.asked.set()
                self._serve(Connection(raw, self._over))


def _read_request(raw: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = raw.recv(65536)
        if not chunk:
            return data
        data += chunk
        if data.startswith(b"\x16"):  # a TLS handshake: not a request at all
            return data
    head, _, body = data.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        while name == b"content-length" and len(body) < int(value):
            body += raw.recv(65536)
    return head + b"\r\n\r\n" + body


@contextlib.contextmanager
def unreachable() -> Iterator[str]:
    """Yield the URL of a port that refuses connections, and that no other process takes meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate for 127.0.0.1 that is its own authority; return its file, and a server's context."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "ca.pem", folder / "key.pem"
    public.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return public, context
