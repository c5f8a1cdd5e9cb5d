"""How Envoy tells the authorization server afterwards of the calls that it did not ask about."""

from typing import Any

from authz.envoy.config.parts import TYPE
from authz.envoy.memo.script import DECIDED, NAME

FLUSH_SECONDS = 0.2
"""How long Envoy waits for more to tell at once."""

BUFFER_BYTES = 128 * 1024
"""How much each thread of Envoy tells at once; a message costs the server as much as a hundred entries."""


def access_logger(cluster_name: str) -> dict[str, Any]:
    """Return the access logger of a connection manager.

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
