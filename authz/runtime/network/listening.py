"""Sockets that listen on TCP."""

import socket

from authz.errors import ConfigError
from authz.runtime.network.addresses import check_address

_BACKLOG = 1024


def bind(address: str, setting: str, *, reuse_port: bool = False) -> socket.socket:
    """Return a socket that listens on ``HOST:PORT``; port 0 is any free one.

    Args:
        address: where.
        setting: what to call it in an error.
        reuse_port: whether other processes of this user listen there as well.

    Raises:
        ConfigError: it cannot be bound.

    """
    check_address(setting, address)
    host, _, port = address.rpartition(":")
    try:
        family, _, _, _, bound = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        # With the protocol named: only then does asyncio turn Nagle's algorithm off.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except (OSError, UnicodeError, ValueError):
        raise ConfigError(f"{setting}: {address!a} is not HOST:PORT of this machine, such as 127.0.0.1:9192") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(bound)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"{setting}: {address!a} cannot be bound ({error.strerror}); choose another") from None
    return listener


def address_of(listener: socket.socket) -> str:
    """Return ``HOST:PORT`` of a socket that listens on TCP."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
