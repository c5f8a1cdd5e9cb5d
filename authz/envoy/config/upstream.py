"""Options for upstreams, in place of Envoy's defaults that would end or refuse calls."""

from typing import Any

from authz.envoy.config import edge

MOST_REQUESTS = edge.MAX_CONNECTIONS * edge.MAX_STREAMS
"""Open requests to one upstream: as many as callers may open."""

CONNECTION_WINDOW = (1 << 31) - 1
"""Bytes that an upstream may send ahead on a connection: all that HTTP/2 permits, because callers share it.

A caller that does not read takes up a window for each of its streams (RFC 9113 section 5.2.2).
"""

HTTP_IDLE_SECONDS = 300
"""How long a plain HTTP request may last without a byte."""

# Shorter than servers of HTTP/1.1 wait for another request: Gunicorn 2 s, Uvicorn and Node 5 s.
_KEPT_SECONDS = 1
PROBED_AFTER_SECONDS, PROBE_SECONDS, PROBES = 60, 10, 3


def connections(*, by_name: bool, over_tcp: bool) -> dict[str, Any]:
    """Return how a cluster connects, and how many requests it allows.

    Args:
        by_name: whether the upstream is found by DNS.
        over_tcp: whether any endpoint is not a Unix socket.

    """
    keepalive = {
        "keepalive_time": PROBED_AFTER_SECONDS,
        "keepalive_interval": PROBE_SECONDS,
        "keepalive_probes": PROBES,
    }
    return {
        "connect_timeout": "1s",
        **({"dns_lookup_family": "V4_PREFERRED"} if by_name else {}),
        **({"upstream_connection_options": {"tcp_keepalive": keepalive}} if over_tcp else {}),
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": edge.MAX_CONNECTIONS,
                    "max_pending_requests": MOST_REQUESTS,
                    "max_requests": MOST_REQUESTS,
                }
            ]
        },
    }


def http1_options() -> dict[str, Any]:
    """Return the options of HTTP/1.1 to an upstream."""
    return {
        "common_http_protocol_options": {"idle_timeout": f"{_KEPT_SECONDS}s"},
        "explicit_http_config": {"http_protocol_options": {}},
    }


def http2_options() -> dict[str, Any]:
    """Return the options of HTTP/2 to an upstream."""
    return {"explicit_http_config": {"http2_protocol_options": windows()}}


def windows() -> dict[str, Any]:
    """Return how much HTTP/2 lets an upstream send ahead, on one stream and on all streams of a connection."""
    return {**edge.windows(), "initial_connection_window_size": CONNECTION_WINDOW}


def lasting() -> dict[str, Any]:
    """Return the timeouts of a route for gRPC calls: none, because the caller's deadline ends calls."""
    return {"timeout": "0s", "idle_timeout": "0s"}


def answering() -> dict[str, Any]:
    """Return the timeouts of a route for plain HTTP requests, whose answers may be endless events."""
    return {"timeout": "0s", "idle_timeout": f"{HTTP_IDLE_SECONDS}s"}
