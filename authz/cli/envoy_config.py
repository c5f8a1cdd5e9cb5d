"""``authz envoy-config``."""

import json

from authz.cli.app import ALLOWED, app
from authz.envoy import config
from authz.metadata import TrustedMetadata


@app.command
def envoy_config(
    *,
    upstream: str,
    http_upstream: str | None = None,
    listen: str = "127.0.0.1:10000",
    authz: str = "127.0.0.1:9191",
    admin: str | None = None,
) -> int:
    """Print a complete Envoy bootstrap, as JSON, that asks `authz serve` about every request.

    Parameters
    ----------
    upstream
        HOST:PORT or unix:PATH of the gRPC backend.
    http_upstream
        The same of a plain HTTP backend; without one Envoy answers 404 to what is not gRPC.
    listen
        Where Envoy listens.
    authz
        Where `authz serve` listens.
    admin
        HOST:PORT of Envoy's administration interface; none by default.

    """
    addresses = {"upstream": upstream, "http_upstream": http_upstream, "listen": listen, "authz": authz, "admin": admin}
    for name, address in addresses.items():
        if address is not None:
            config.check_address(name, address)
    routes = [config.grpc_route("upstream")]
    clusters = [config.cluster("authz", [authz], http2=True), config.cluster("upstream", [upstream], http2=True)]
    if http_upstream is not None:
        routes.append(config.http_route("http_upstream"))
        clusters.append(config.cluster("http_upstream", [http_upstream], http2=False))
    listener = config.listener("ingress", listen, routes, authz="authz", trusted=TrustedMetadata())
    print(json.dumps(config.bootstrap([listener], clusters, admin=admin), indent=2))
    return ALLOWED
