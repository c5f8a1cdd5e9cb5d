"""Addresses on which several workers listen: they share each TCP port, and each has Unix sockets of its own."""

import contextlib
import errno
import socket
from collections.abc import Sequence
from typing import Any, Self

from authz.errors import ConfigError
from authz.runtime.network.addresses import Address, parse, parse_all

_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class SharedAddresses:
    """The addresses of several workers; a context manager that reserves their ports.

    Args:
        listen: ``HOST:PORT``, ``tls:HOST:PORT`` or ``unix:PATH``; port 0 is any free one.
        setting: what to call them in an error.

    Raises:
        ConfigError: an address cannot be bound.

    """

    def __init__(self, listen: Sequence[str], setting: str = "listen") -> None:
        with contextlib.ExitStack() as binding:
            self._addresses = [
                address if address.kind == "unix" else _hold(address, setting, binding)
                for address in parse_all(listen, setting)
            ]
            self._held = binding.pop_all()

    def of(self, worker: int) -> list[str]:
        """Return the addresses of one worker."""
        return [f"{one.text}.{worker}" if one.kind == "unix" else one.text for one in self._addresses]

    def all(self, workers: int) -> list[str]:
        """Return the addresses of all of them."""
        of_each = [self.of(worker) for worker in range(workers)]
        return list(dict.fromkeys(address for same in zip(*of_each, strict=True) for address in same))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()


def _hold(address: Address, setting: str, held: contextlib.ExitStack) -> Address:
    """Return ``address`` with the port in force, which stays ours as long as the sockets in ``held`` are open."""
    host, _, text = address.target.rpartition(":")
    port, is_held, failure = int(text), False, OSError(0, "no such host")
    for family, bound in _resolved(host.strip("[]"), port):
        try:
            # Without SO_REUSEPORT at first: with it, two servers of one user could share a port by mistake, unnoticed.
            with _bound(family, bound, port) as probe:
                port = probe.getsockname()[1]
            held.enter_context(_bound(family, bound, port, socket.SO_REUSEPORT))
        except OSError as error:
            # localhost has an IPv6 address even on a machine without IPv6.
            if error.errno not in _NOT_HERE:
                raise _refused(setting, address, error) from None
            failure = error
        else:
            is_held = True
    if not is_held:
        raise _refused(setting, address, failure)
    return parse(setting, address.at(port))


def _refused(setting: str, address: Address, error: OSError) -> ConfigError:
    return ConfigError(f"{setting}: {address.text!a} cannot be bound ({error.strerror}); choose another")


def _resolved(host: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
    with contextlib.suppress(OSError, UnicodeError):
        return [(family, bound) for family, _, _, _, bound in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    return []


def _bound(family: socket.AddressFamily, address: Any, port: int, *options: int) -> socket.socket:
    # Bound, but without listen(): the kernel gives no connection to it.
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        for option in options:
            bound.setsockopt(socket.SOL_SOCKET, option, 1)
        # Connections of a server that has just ended must not prevent this; a server that runs must.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address[0], port, *address[2:]))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError:
        bound.close()
        raise
    return bound
