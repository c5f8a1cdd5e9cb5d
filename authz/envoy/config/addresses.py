"""Addresses in Envoy's terms, with the same meaning as for ``authz serve``."""

from collections.abc import Iterable
from typing import Any

from authz.errors import ConfigError
from authz.runtime.network.urls import ip_address

UNIX = "unix:"

# Envoy binds and connects to IP addresses, and asks DNS for names. Servers listen on one of these or on both.
_LOCALHOST, _LOOPBACK, _LOOPBACK_6 = "localhost", "127.0.0.1", "::1"


def listening(address: str) -> dict[str, Any]:
    """Return where a listener is.

    Args:
        address: ``HOST:PORT`` or ``unix:PATH``; ``[::]`` accepts IPv4 as well.

    """
    made = _address(address)
    if made.get("socket_address", {}).get("address") == "::":
        made["socket_address"]["ipv4_compat"] = True
    return made


def check_listening(setting: str, address: str) -> str:
    """Return ``address`` if Envoy can listen on it, which takes an IP address and no name.

    Raises:
        ConfigError: it is a name; the message names ``setting``.

    """
    if not is_fixed([address]):
        raise ConfigError(
            f"{setting}: {address!a} is a name, and Envoy listens on addresses; use one like 0.0.0.0:10000"
        )
    return address


def endpoints(addresses: Iterable[str]) -> list[dict[str, Any]]:
    """Return the endpoints of a cluster at ``addresses``, each ``HOST:PORT`` or ``unix:PATH``."""
    addresses = list(addresses)
    return [{"endpoint": _endpoint(address, is_fixed=is_fixed(addresses))} for address in addresses]


def is_fixed(addresses: Iterable[str]) -> bool:
    """Say whether none of ``addresses`` needs DNS."""
    return all(address.startswith(UNIX) or ip_address(_number(_host(address))) for address in addresses)


def _endpoint(address: str, *, is_fixed: bool) -> dict[str, Any]:
    endpoint: dict[str, Any] = {"address": _address(address)}
    if is_fixed and not address.startswith(UNIX) and _host(address).lower() == _LOCALHOST:
        # Tried if the first refuses; Envoy permits it in clusters without DNS.
        other = {"address": _LOOPBACK_6, "port_value": _port(address)}
        endpoint["additional_addresses"] = [{"address": {"socket_address": other}}]
    return endpoint


def _address(address: str) -> dict[str, Any]:
    if address.startswith(UNIX):
        return {"pipe": {"path": address.removeprefix(UNIX)}}
    return {"socket_address": {"address": _number(_host(address)), "port_value": _port(address)}}


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _number(host: str) -> str:
    return _LOOPBACK if host.lower() == _LOCALHOST else host
