"""The cluster of the authorization servers in Envoy's configuration: addresses, TLS and health checks."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from authz.envoy.config.addresses import UNIX
from authz.envoy.config.parts import TYPE, cluster
from authz.errors import ConfigError
from authz.runtime.network.addresses import check_address
from authz.runtime.network.urls import ip_address

_TLS = "tls:"
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - what a server may be told to listen on

# Where Envoy's images have the system's CAs.
_SYSTEM_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"

_MOST_CHECKS = 1024

# A new connection costs a millisecond, which one check in five hundred waits for.
_CHECKS_PER_CONNECTION = 500


def check_authz_address(setting: str, address: str) -> str:
    """Return ``address`` if it fits an authorization server: ``HOST:PORT``, ``unix:PATH`` or ``tls:HOST:PORT``.

    Raises:
        ConfigError: it does not, or its port is 0, so that only the server knows it; the message names ``setting``.

    """
    is_tls = address.startswith(_TLS)
    plain = check_address(setting, address.removeprefix(_TLS))
    if not plain.startswith(UNIX) and int(plain.rpartition(":")[2]) == 0:
        raise ConfigError(f"{setting}: {address!a} has no fixed port, so Envoy cannot be told where it is")
    if is_tls and plain.startswith(UNIX):
        raise ConfigError(f"{setting}: {address!a} is neither HOST:PORT, tls:HOST:PORT nor unix:PATH")
    return address


def endpoints(addresses: Iterable[str], *, workers: int = 1) -> list[str]:
    """Return where Envoy finds the servers that listen on ``addresses``.

    Args:
        addresses: ``HOST:PORT``, ``tls:HOST:PORT`` or ``unix:PATH``, as ``authz serve`` takes them.
        workers: processes per address; each has a Unix socket of its own, and so an endpoint, but they share a port.

    """
    return list(itertools.chain.from_iterable(_endpoints(address, workers) for address in addresses))


def _endpoints(address: str, workers: int) -> list[str]:
    if address.startswith(UNIX):
        return [address] if workers == 1 else [f"{address}.{number}" for number in range(workers)]
    host, _, port = address.removeprefix(_TLS).rpartition(":")
    scheme = _TLS if address.startswith(_TLS) else ""
    return [f"{scheme}{_EVERYWHERE.get(host, host)}:{port}"]


@dataclass(frozen=True, kw_only=True)
class Tls:
    """What Envoy needs to speak TLS with an authorization server.

    Args:
        ca_file: PEM file of the CAs to trust; by default the system's.
        cert_file: PEM file of Envoy's own certificate, if the server asks for one.
        key_file: PEM file of its key.

    Raises:
        ConfigError: a certificate without a key, or the other way round.

    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def __post_init__(self) -> None:
        """Check that both files are given, or neither."""
        if (self.cert_file is None) is not (self.key_file is None):
            raise ConfigError("authz_cert_file: a certificate and its key belong together; set --authz-key-file, too")


def authz_cluster(name: str, addresses: Sequence[str], *, tls: Tls | None = None) -> dict[str, Any]:
    """Return the cluster of the authorization servers, with health checks.

    Args:
        name: the cluster's.
        addresses: from :func:`endpoints`.
        tls: for ``tls:HOST:PORT``.

    Raises:
        ConfigError: only some of them use TLS, or they have different hosts.

    """
    hosts = {address.removeprefix(_TLS).rpartition(":")[0] if address.startswith(_TLS) else "" for address in addresses}
    if len(hosts) != 1:
        raise ConfigError("authz: with tls: all servers must have the same host name, the one in their certificate")
    made = cluster(name, [address.removeprefix(_TLS) for address in addresses], http2=True)
    made["circuit_breakers"] = {"thresholds": [{"max_requests": _MOST_CHECKS, "max_retries": _MOST_CHECKS}]}
    made["common_lb_config"] = {"healthy_panic_threshold": {"value": 1}, "update_merge_window": "0s"}
    made["health_checks"] = [
        {
            "grpc_health_check": {},
            "interval": "1s",
            "no_traffic_interval": "1s",
            "timeout": "1s",
            "unhealthy_threshold": 1,
            "healthy_threshold": 1,
        }
    ]
    if not all(address.startswith(UNIX) for address in addresses):
        [options] = made["typed_extension_protocol_options"].values()
        options["common_http_protocol_options"] = {"max_requests_per_connection": _CHECKS_PER_CONNECTION}
    [host] = hosts
    if host:
        made["transport_socket"] = upstream_tls(host.strip("[]"), tls or Tls())
    return made


def upstream_tls(host: str, tls: Tls) -> dict[str, Any]:
    """Return how Envoy connects to a server of ours by TLS, whose certificate must name ``host``."""
    is_name = ip_address(host) is None
    common: dict[str, Any] = {
        "alpn_protocols": ["h2"],
        "validation_context": {
            "trusted_ca": {"filename": tls.ca_file or _SYSTEM_AUTHORITIES},
            "match_typed_subject_alt_names": [
                {"san_type": "DNS" if is_name else "IP_ADDRESS", "matcher": {"exact": host}}
            ],
        },
    }
    if tls.cert_file is not None:
        common["tls_certificates"] = [
            {"certificate_chain": {"filename": tls.cert_file}, "private_key": {"filename": tls.key_file}}
        ]
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": TYPE + "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            **({"sni": host} if is_name else {}),
            "common_tls_context": common,
        },
    }
