"""The parts of Envoy's configuration that have it repeat answers of the authorization server."""

from typing import Any

from authz.envoy.config.authz_cluster import Tls, upstream_tls
from authz.envoy.config.parts import TYPE, cluster
from authz.envoy.memo.script import DECIDED, NAME, NOTHING
from authz.errors import ConfigError
from authz.runtime.network.addresses import parse

LUA = TYPE + "extensions.filters.http.lua.v3.Lua"
_CLUSTER = "authz_xds"
_FILE = "file:"

NODE = {"id": "authz", "cluster": "authz"}
"""What Envoy calls itself, for it must have a name; every Envoy is told the same."""


FLUSH_SECONDS = 0.5
"""How long Envoy waits for more to tell at once."""

BUFFER_BYTES = 256 * 1024
"""How much each thread of Envoy tells at once; a message costs the server as much as a hundred entries."""


def check_xds(xds: str | None) -> str:
    """Return where Envoy hears what it may repeat, as the setting ``xds`` has it.

    Raises:
        ConfigError: it is missing, or not what the setting may be.

    """
    if xds is None:
        raise ConfigError("xds: missing; set --xds or AUTHZ_XDS, such as unix:/run/authz/xds.sock, as for the server")
    if xds.startswith(_FILE) and xds != _FILE:
        return xds
    address = parse("xds", xds)
    if address.kind == "tcp" or address.target.endswith(":0"):
        raise ConfigError(f"xds: {xds!a} is not safe, or has no fixed port; give unix:PATH, tls:HOST:PORT or file:PATH")
    return xds


def filter_from(xds: str) -> dict[str, Any]:
    """Return the HTTP filter that stands before the check, and repeats answers.

    Args:
        xds: where its script comes from: ``unix:PATH``, ``tls:HOST:PORT`` or ``file:PATH``.

    """
    if xds.startswith(_FILE):
        path = xds.removeprefix(_FILE)
        folder = path.rpartition("/")[0] or "/"
        source: dict[str, Any] = {"path_config_source": {"path": path, "watched_directory": {"path": folder}}}
    else:
        services = [{"envoy_grpc": {"cluster_name": _CLUSTER}}]
        source = {"api_config_source": {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": services}}
    return {
        "name": NAME,
        "config_discovery": {
            "config_source": {"resource_api_version": "V3", **source},
            "default_config": {"@type": LUA, "default_source_code": {"inline_string": NOTHING}},
            "apply_default_config_without_warming": True,
            "type_urls": [LUA],
        },
    }


def clusters(xds: str, tls: Tls) -> list[dict[str, Any]]:
    """Return the cluster by which Envoy hears which answers it may repeat; none for a file."""
    if xds.startswith(_FILE):
        return []
    address = parse("xds", xds)
    made = cluster(_CLUSTER, [address.target], http2=True)
    if address.kind == "tls":
        made["transport_socket"] = upstream_tls(address.target.rpartition(":")[0].strip("[]"), tls)
    return [made]


def access_logger(cluster_name: str) -> dict[str, Any]:
    """Return the access logger of a connection manager: it tells the server of the answers that Envoy repeats.

    Args:
        cluster_name: the cluster of the server's ``access_log_listen``; see :func:`authz.envoy.config.parts.cluster`.

    """
    marked = {"filter": NAME, "path": [{"key": DECIDED}], "value": {"bool_match": True}}
    return {
        "name": "envoy.access_loggers.http_grpc",
        "filter": {"metadata_filter": {"matcher": marked, "match_if_key_not_found": False}},
        "typed_config": {
            "@type": TYPE + "extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
            "common_config": {
                "log_name": "authz",
                "transport_api_version": "V3",
                "grpc_service": {"envoy_grpc": {"cluster_name": cluster_name}},
                "buffer_flush_interval": f"{FLUSH_SECONDS}s",
                "buffer_size_bytes": BUFFER_BYTES,
            },
        },
    }
