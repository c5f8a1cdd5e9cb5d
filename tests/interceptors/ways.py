"""A server that can be reached in several ways, and clients that come by each, with a certificate or without."""

import contextlib
import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc

from tests.certificates import Authority, Certificate
from tests.interceptors.client import Outcome, call
from tests.interceptors.servers import Door, Loop
from tests.interceptors.service import Witness, handlers


class Way(enum.Enum):
    """How a client reaches the server."""

    MUTUAL_TLS = enum.auto()
    TLS = enum.auto()
    PLAIN = enum.auto()
    UNIX = enum.auto()


@dataclass(frozen=True)
class Client:
    """How a client comes, and with which certificate."""

    way: Way
    certificate: Certificate | None = None


PLAIN, TLS, UNIX = Client(Way.PLAIN), Client(Way.TLS), Client(Way.UNIX)


@dataclass
class Reachable:
    """A running server, what its handlers have seen, and its clients."""

    authority: Authority
    socket: Path
    witness: Witness = field(default_factory=Witness)
    _ports: dict[Way, str] = field(default_factory=dict)
    _channels: dict[Client, grpc.Channel] = field(default_factory=dict)

    def bind(self, server: Any) -> str:
        """Give ``server`` a port for each way."""
        own = self.authority.issue_for_loopback()
        pairs = [(own.key, own.chain)]
        mutual = grpc.ssl_server_credentials(pairs, self.authority.root, require_client_auth=True)
        tls = grpc.ssl_server_credentials(pairs)
        server.add_insecure_port(f"unix:{self.socket}")
        self._ports = {
            Way.MUTUAL_TLS: f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', mutual)}",
            Way.TLS: f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', tls)}",
            Way.PLAIN: f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}",
            Way.UNIX: f"unix:{self.socket}",
        }
        return self._ports[Way.PLAIN]

    def channel(self, client: Client) -> grpc.Channel:
        """Return the one channel of ``client``."""
        if client not in self._channels:
            options = [("grpc.use_local_subchannel_pool", 1)]
            address = self._ports[client.way]
            if client.way in {Way.PLAIN, Way.UNIX}:
                self._channels[client] = grpc.insecure_channel(address, options)
            else:
                pair = (client.certificate.key, client.certificate.chain) if client.certificate else (None, None)
                credentials = grpc.ssl_channel_credentials(self.authority.root, *pair)
                self._channels[client] = grpc.secure_channel(address, credentials, options)
        return self._channels[client]

    def close(self) -> None:
        """Close every channel."""
        for channel in self._channels.values():
            channel.close()

    def call(self, client: Client, kind: str, name: str | None = None, **options: Any) -> Outcome:
        return call(self.channel(client), kind, name, **options)

    @classmethod
    @contextlib.contextmanager
    def serving(
        cls,
        door: Door,
        loop: Loop,
        authority: Authority,
        folder: Path,
        *interceptors: Any,
        **options: Any,
    ) -> Iterator[Self]:
        """Serve every method behind ``interceptors``."""
        reachable = cls(authority, folder / "s")
        served = handlers(door.behaviours(reachable.witness), reachable.witness)
        with door.listen(loop, served, interceptors, bind=reachable.bind, **options):
            try:
                yield reachable
            finally:
                reachable.close()
