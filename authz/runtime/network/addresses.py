"""Addresses to listen on, parsed once: ``HOST:PORT``, ``tls:HOST:PORT`` or ``unix:PATH``."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from authz.errors import ConfigError
from authz.runtime.network.urls import is_loopback

_MAX_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One address to listen on, or to connect to.

    Args:
        kind: ``tcp`` is plaintext.
        text: as it was given.
        target: for gRPC: ``HOST:PORT`` or ``unix:PATH``.

    """

    kind: Literal["tcp", "tls", "unix"]
    text: str
    target: str

    @property
    def path(self) -> str:
        """The path of a Unix socket."""
        return self.target.removeprefix("unix:")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.kind == "unix" or is_loopback(self.target.rpartition(":")[0].strip("[]"))

    def at(self, port: int) -> str:
        """Return it as text, with the given port."""
        return self.text if self.kind == "unix" else f"{self.text.rpartition(':')[0]}:{port}"


def parse(setting: str, text: str) -> Address:
    """Return the address that ``text`` names.

    Raises:
        ConfigError: it names none; the message names ``setting``.

    """
    if text.startswith("unix-abstract:"):
        # An abstract socket has no file, and so no permissions: every process of the machine could connect.
        raise ConfigError(f"{setting}: {text!a} cannot be guarded by permissions; use unix:PATH")
    if text.startswith("unix:") and text != "unix:":
        return Address(kind="unix", text=text, target=text)
    target = text.removeprefix("tls:")
    if is_host_and_port(target):
        return Address(kind="tcp" if target == text else "tls", text=text, target=target)
    raise ConfigError(f"{setting}: {text!a} is neither HOST:PORT, tls:HOST:PORT nor unix:PATH")


def parse_all(listen: Iterable[str], setting: str = "listen") -> list[Address]:
    """Return the addresses of a setting.

    Raises:
        ConfigError: one is not an address, or is given twice.

    """
    addresses = [parse(setting, text) for text in listen]
    targets = [address.target for address in addresses if not address.target.endswith(":0")]
    for target in targets:
        if targets.count(target) > 1:
            raise ConfigError(f"{setting}: {target!a} is given twice; leave one out")
    return addresses


def socket_paths(addresses: Iterable[Address]) -> list[str]:
    """Return the paths of the Unix sockets among ``addresses``."""
    return [address.path for address in addresses if address.kind == "unix"]


def check_address(setting: str, address: str) -> str:
    """Return ``address`` if it is ``HOST:PORT`` or ``unix:PATH``.

    Raises:
        ConfigError: it is neither; the message names ``setting``.

    """
    if is_host_and_port(address) or (address.startswith("unix:") and address != "unix:"):
        return address
    raise ConfigError(f"{setting}: {address!a} is neither HOST:PORT nor unix:PATH")


def is_host_and_port(text: str) -> bool:
    """Say whether ``text`` is ``HOST:PORT``; without a port gRPC would use 443."""
    host, _, port = text.rpartition(":")
    return bool(host) and host != "unix" and port.isascii() and port.isdecimal() and int(port) <= _MAX_PORT
