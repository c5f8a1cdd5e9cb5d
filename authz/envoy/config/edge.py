"""What Envoy's configuration grants to callers at its edge, so that none of them uses up what the others need.

Envoy's own defaults are for a mesh, whose callers are friends; these are what its authors recommend for strangers
("Configuring Envoy as an edge proxy"). None of them ends a stream that lasts: ``request_timeout`` and
``max_stream_duration`` are left off, which would.
"""

from typing import Any, Literal

Underscores = Literal["REJECT_REQUEST", "DROP_HEADER", "ALLOW"]

HEAP_BYTES = 1 << 30
"""The memory that Envoy may have allocated, unless that is said."""

MAX_CONNECTIONS = 10_000
MAX_STREAMS = 100
MAX_HEADERS = 100
MAX_HEADERS_KIB = 60
HEADERS_SECONDS = 10
PING_SECONDS, _PONG_SECONDS = 60, 20
BUFFER_BYTES = 32 << 10
STREAM_WINDOW, CONNECTION_WINDOW = 64 << 10, 1 << 20
# More streams than that of one connection, and half of them reset by the caller within a second: a flood.
_RESETS, _RESET_SECONDS = 500, 1

_TYPE = "type.googleapis.com/envoy.extensions.resource_monitors."
_HEAP = "envoy.resource_monitors.fixed_heap"


def connection_manager(underscores: Underscores = "REJECT_REQUEST") -> dict[str, Any]:
    """Return the limits that a connection manager keeps.

    Args:
        underscores: what becomes of requests that have headers with underscores, which some servers read as hyphens.

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
    """Return how much HTTP/2 lets a peer send ahead, of one stream and of all streams of a connection."""
    return {"initial_stream_window_size": STREAM_WINDOW, "initial_connection_window_size": CONNECTION_WINDOW}


def buffers() -> dict[str, Any]:
    """Return how much of each connection a listener or a cluster holds in memory."""
    return {"per_connection_buffer_limit_bytes": BUFFER_BYTES}


def process(max_heap_bytes: int = HEAP_BYTES) -> dict[str, Any]:
    """Return the limits that hold for the whole process; they stand in its bootstrap.

    Args:
        max_heap_bytes: the memory that it may have allocated; keep it below what its machine or container grants.

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
