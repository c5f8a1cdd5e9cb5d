"""Envoy's configuration as a document: a whole bootstrap, or the parts for a bootstrap of your own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from authz.call.metadata import TrustedMetadata
from authz.envoy.config import browsers, comments, edge, memo, parts, upstream
from authz.envoy.config.annotated import Document
from authz.envoy.config.authz_cluster import Tls, authz_cluster

VERSIONS = "Envoy 1.40"


@dataclass(frozen=True, kw_only=True)
class Ingress:
    """The configuration around the check.

    Args:
        authz: endpoints of the authorization servers.
        tls: for those with ``tls:``.
        upstream: ``HOST:PORT`` or ``unix:PATH`` of the gRPC backend.
        http_upstream: the same for a plain HTTP backend.
        listen: where Envoy listens.
        admin: where its administration interface is.
        max_heap_bytes: the memory that it may have allocated.
        cors_origins: of the pages that may call from a browser.
        grpc_web: whether callers may speak gRPC-Web to the gRPC backend.
        xds: where Envoy hears which answers it may repeat, as the setting has it; ``None`` to ask every time.
        access_log: endpoints of the servers that are told of those; with none they are not told.

    """

    authz: list[str]
    upstream: str
    tls: Tls = field(default_factory=Tls)
    http_upstream: str | None = None
    listen: str = "127.0.0.1:10000"
    admin: str | None = None
    max_heap_bytes: int = edge.HEAP_BYTES
    cors_origins: list[str] = field(default_factory=list)
    grpc_web: bool = False
    xds: str | None = None
    access_log: list[str] = field(default_factory=list)


def bootstrap(ingress: Ingress) -> Document:
    """Return a complete bootstrap."""
    routes = [parts.grpc_route("upstream")]
    clusters = [
        authz_cluster("authz", ingress.authz, tls=ingress.tls),
        parts.cluster("upstream", [ingress.upstream], http2=True),
    ]
    if ingress.grpc_web:
        routes.append(parts.grpc_web_route("upstream"))
    if ingress.http_upstream is not None:
        routes.append(parts.http_route("http_upstream"))
        clusters.append(parts.cluster("http_upstream", [ingress.http_upstream], http2=False))
    listener = parts.listener(
        "ingress",
        ingress.listen,
        routes,
        authz="authz",
        trusted=TrustedMetadata(),
        cors_origins=ingress.cors_origins,
        grpc_web=ingress.grpc_web,
        memo=None if ingress.xds is None else memo.filter_from(ingress.xds),
        access_log=memo.access_logger("authz_access_log") if ingress.access_log else None,
    )
    if ingress.xds is not None:
        clusters += memo.clusters(ingress.xds, ingress.tls)
    if ingress.access_log:
        clusters.append(parts.cluster("authz_access_log", ingress.access_log, http2=True))
    return Document(
        data=parts.bootstrap(
            [listener],
            clusters,
            admin=ingress.admin,
            max_heap_bytes=ingress.max_heap_bytes,
            node=None if ingress.xds is None else memo.NODE,
        ),
        title=f"For {VERSIONS}: envoy -c FILE. Made by `authz envoy-config`.",
        comments=comments.BOOTSTRAP,
    )


def fragment(authz: list[str], tls: Tls, *, cors_origins: Sequence[str] = (), grpc_web: bool = False) -> Document:
    """Return the parts for a bootstrap of your own; the arguments are those of :class:`Ingress`."""
    around = browsers.around(parts.ext_authz("authz"), cors_origins=cors_origins, grpc_web=grpc_web)
    at_host = browsers.virtual_host(cors_origins)
    data: dict[str, Any] = {
        "http_connection_manager": {
            "use_remote_address": True,
            **edge.connection_manager(),
            **parts.one_spelling(),
            "early_header_mutation_extensions": [parts.early_removal(TrustedMetadata())],
            "http_filters": [*around, parts.trailers_removal(TrustedMetadata())],
        },
        **({"virtual_host": at_host} if at_host else {}),
        **({"routes": [parts.grpc_web_route("upstream")]} if grpc_web else {}),
        "clusters": [authz_cluster("authz", authz, tls=tls)],
        "listener": edge.buffers(),
        "grpc_route": upstream.lasting(),
        "http_route": upstream.answering(),
        "upstream_http2_protocol_options": upstream.windows(),
        "upstream_cluster": {**upstream.connections(by_name=True, over_tcp=True), **edge.buffers()},
        **edge.process(),
    }
    return Document(
        data=data,
        title=f"For {VERSIONS}, in parts: not a bootstrap. Made by `authz envoy-config --format filter`.\n"
        "Merge http_connection_manager into every connection manager that outsiders reach, its http_filters before all "
        "others except cors, which stands before them: it answers preflights, which have no token, and lets pages read "
        "refusals. grpc_web stands after ext_authz, so that the server sees which callers speak gRPC-Web, and refuses "
        "in its form. --cors-origin and --grpc-web print both in place. Merge clusters into static_resources, and "
        "listener into every listener; grpc_route and http_route into the route of every route of that kind, and "
        "upstream_cluster into your own clusters (dns_lookup_family where they have names), with "
        "upstream_http2_protocol_options; overload_manager and layered_runtime apply to the whole process, and belong "
        "in the bootstrap.",
        comments=comments.BOOTSTRAP,
    )
