"""Envoy's configuration, and that of meshes, made from ours; here are the parts for a bootstrap of one's own."""

from authz.envoy.config.parts import (
    bootstrap,
    cluster,
    ext_authz,
    grpc_route,
    grpc_web_route,
    http_route,
    listener,
    unary_route,
)

__all__ = [
    "bootstrap",
    "cluster",
    "ext_authz",
    "grpc_route",
    "grpc_web_route",
    "http_route",
    "listener",
    "unary_route",
]
