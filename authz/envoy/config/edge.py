"""Limits for callers at Envoy's edge, so that no caller uses up what the others need.

Envoy's own defaults are for a mesh of trusted callers; these are what its authors recommend for untrusted ones
("Configuring Envoy as an edge proxy"). None of them ends a long stream: ``request_timeout`` and
``max_stream_duration``, which would, are not set.
"""

from typing import Any, Literal

Underscores = Literal["REJECT_REQUEST", "DROP_HEADER", "ALLOW"]

HEAP_BYTES = 1 << 30
"""The default for the memory that Envoy may have allocated."""

MAX_CONNECTIONS = 10_000
MAX_STREAMS = 100
MAX_HEADERS = 100
MAX_HEADERS_KIB = 60
HEADERS_SECONDS = 10
PING_SECONDS, _PONG_SECONDS = 60, 20
BUFFER_BYTES = 32 << 10
STREAM_WINDOW, CONNECTION_WINDOW = 64 << 10, 1 << 20
# It is a flood if a connection has more streams than that, and the caller resets half of them within a second.
_RESETS, _RESET_SECONDS = 500, 1

_TYPE = "type.googleapis.com/envoy.extensions.resource_monitors."
_HEAP = "envoy.resource_monitors.fixed_heap"


def connection_manager(underscores: Underscores = "REJECT_REQUEST") -> dict[str, Any]:
    """Return the limits of a connection manager.

    Args:
        underscores: what to do with requests that have headers with underscores, which some servers read as hyphens.

    """
    return {
        "request_headers_timeout": f"{HEADERS_SECONDS}s",
        "max_request_headers_kb": MAX_HEADERS_KIB,
        "common_http_protocol_options": {
            "max_headers_count": MAX_HEADERS,
            "headers_with_underscores_action": underscores,
        },
        "http2_protocol_options": {
            "max_concurrent_streams": MAX_STREAMS,
            **windows(),
            "connection_keepalive": {"interval": f"{PING_SECONDS}s", "timeout": f"{_PONG_SECONDS}s"},
        },
    }


def windows() -> dict[str, Any]:
    """Return how much HTTP/2 lets a peer send ahead, on one stream and on all streams of a connection."""
    return {"initial_stream_window_size": STREAM_WINDOW, "initial_connection_window_size": CONNECTION_WINDOW}


def buffers() -> dict[str, Any]:
    """Return how much of each connection a listener or a cluster holds in memory."""
    return {"per_connection_buffer_limit_bytes": BUFFER_BYTES}


def process(max_heap_bytes: int = HEAP_BYTES) -> dict[str, Any]:
    """Return the limits for the whole process, which stand in its bootstrap.

    Args:
        max_heap_bytes: the memory that it may have allocated; keep it below the limit of its machine or container.

    """
    return {"overload_manager": _overload_manager(max_heap_bytes), "layered_runtime": _runtime()}


def _overload_manager(max_heap_bytes: int) -> dict[str, Any]:
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {
                "name": _HEAP,
                "typed_config": {
                    "@type": _TYPE + "fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": max_heap_bytes,
                },
            },
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": _TYPE + "downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": MAX_CONNECTIONS,
                },
            },
        ],
        "actions": [_action("shrink_heap", 0.95), _action("stop_accepting_requests", 0.98)],
    }


def _action(name: str, threshold: float) -> dict[str, Any]:
    return {
        "name": f"envoy.overload_actions.{name}",
        "triggers": [{"name": _HEAP, "threshold": {"value": threshold}}],
    }


def _runtime() -> dict[str, Any]:
    values = {
        "overload.premature_reset_total_stream_count": _RESETS,
        "overload.premature_reset_min_stream_lifetime_seconds": _RESET_SECONDS,
        "http.max_requests_per_io_cycle": 1,
    }
    return {"layers": [{"name": "edge", "static_layer": values}]}
