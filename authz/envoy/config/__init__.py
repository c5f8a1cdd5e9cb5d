"""Envoy's configuration, and meshes', made from ours; this module has the parts for a bootstrap of your own."""

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
