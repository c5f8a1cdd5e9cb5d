"""The parts of a bootstrap of Envoy, made from our configuration.

Everything is plain data, ready for ``json.dumps``; Envoy reads JSON as well as YAML.
``authz.envoy.config.comments`` says why each part is there.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from authz.call.metadata import TrustedMetadata
from authz.envoy.config import addresses, browsers, edge, upstream
from authz.envoy.memo.script import DECIDED
from authz.judge.mesh import UNDECIDED

TYPE = "type.googleapis.com/envoy."
EXT_AUTHZ = TYPE + "extensions.filters.http.ext_authz.v3.ExtAuthz"
HTTP_MANAGER = TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_HTTP_OPTIONS = TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions"


# A disguised ".." that Envoy passes on, but servers that know parameters of segments follow: /open/%2e%2e;/private
# would take the route of /open/, which may have no check, and be served as /private.
_STEP_IN_DISGUISE = r".*/(\.|%2[eE]){1,2}(;|%3[bB]).*"


def bootstrap(
    listeners: Iterable[Mapping[str, Any]],
    clusters: Iterable[Mapping[str, Any]],
    *,
    admin: str | None = None,
    max_heap_bytes: int = edge.HEAP_BYTES,
    node: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a complete Envoy bootstrap.

    Args:
        listeners: made by :func:`listener`.
        clusters: made by :func:`cluster`.
        admin: ``HOST:PORT`` of the administration interface, or ``None`` for none.
        max_heap_bytes: the memory that Envoy may have allocated; close to it, Envoy refuses requests.
        node: what Envoy calls itself where it asks for configuration.

    """
    config: dict[str, Any] = {
        **({} if node is None else {"node": dict(node)}),
        "static_resources": {"listeners": list(listeners), "clusters": list(clusters)},
        **edge.process(max_heap_bytes),
    }
    if admin is not None:
        config["admin"] = {"address": addresses.listening(admin), "ignore_global_conn_limit": True}
    return config


def listener(
    name: str,
    address: str,
    routes: Sequence[Mapping[str, Any]],
    *,
    authz: str,
    trusted: TrustedMetadata,
    max_request_bytes: int | None = None,
    underscores: edge.Underscores = "REJECT_REQUEST",
    cors_origins: Sequence[str] = (),
    grpc_web: bool = False,
    memo: Mapping[str, Any] | None = None,
    access_log: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a listener that asks the external authorization server about every request.

    Args:
        name: the listener's, and the prefix of its statistics.
        address: ``HOST:PORT`` or ``unix:PATH``.
        routes: made by :func:`grpc_route` and :func:`http_route`; the first match counts.
        authz: the cluster of the authorization server.
        trusted: the names that callers may not send.
        max_request_bytes: show the authorization server the requests of each :func:`unary_route`, and refuse a larger
            one with HTTP 413; by default none is shown. If requests may name organizations, the server checks up to
            262,144 bytes, and refuses more.
        underscores: what to do with requests that have headers with underscores, which some servers read as hyphens.
            Trusted names are removed in every spelling in any case.
        cors_origins: of the pages that may call from a browser; none by default.
        grpc_web: whether to turn gRPC-Web into gRPC; add a :func:`grpc_web_route`.
        memo: what repeats answers, see :mod:`authz.envoy.config.memo`; by default every request is asked about.
        access_log: what tells the server of those, see :func:`authz.envoy.config.memo.access_logger`.

    """
    virtual_host: dict[str, Any] = {"name": "all", "domains": ["*"], "routes": [_dead_end(), *routes]}
    virtual_host |= browsers.virtual_host(cors_origins)
    asking = ext_authz(authz, undecided_by=None if memo is None else memo["name"])
    if max_request_bytes is not None:
        # Only here: Envoy 1.40 shows the body as text whatever a route says about pack_as_bytes.
        asking["typed_config"]["with_request_body"] = {"max_request_bytes": max_request_bytes, "pack_as_bytes": True}
        # Else a stream would be held back until its end.
        virtual_host["typed_per_filter_config"] = virtual_host.get("typed_per_filter_config", {}) | _buffering(
            disabled=True
        )
    manager = {
        "@type": HTTP_MANAGER,
        "stat_prefix": name,
        "codec_type": "AUTO",
        "use_remote_address": True,
        **edge.connection_manager(underscores),
        **one_spelling(),
        "early_header_mutation_extensions": [early_removal(trusted)],
        **({} if access_log is None else {"access_log": [access_log]}),
        "route_config": {"name": name, "virtual_hosts": [virtual_host]},
        "http_filters": [
            *browsers.around(asking, before=memo, cors_origins=cors_origins, grpc_web=grpc_web),
            trailers_removal(trusted),
            _router(),
        ],
    }
    return {
        "name": name,
        "address": addresses.listening(address),
        **edge.buffers(),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def one_spelling() -> dict[str, Any]:
    """Return the options of a connection manager that give every path one spelling."""
    return {
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
    }


def early_removal(trusted: TrustedMetadata) -> dict[str, Any]:
    """Return what removes the trusted names from every request before it is routed."""
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": TYPE + "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": _removals(trusted),
        },
    }


def trailers_removal(trusted: TrustedMetadata) -> dict[str, Any]:
    """Return the HTTP filter that removes the trusted names from a request's trailers."""
    return {
        "name": "envoy.filters.http.header_mutation",
        "typed_config": {
            "@type": TYPE + "extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"request_trailers_mutations": _removals(trusted)},
        },
    }


def _removals(trusted: TrustedMetadata) -> list[dict[str, str]]:
    # UNDECIDED, too: a caller must not claim that Envoy let it pass undecided.
    return [{"remove": name} for name in (*trusted.forgeable, UNDECIDED)]


def ext_authz(cluster_name: str, *, timeout: float = 1.0, undecided_by: str | None = None) -> dict[str, Any]:
    """Return the HTTP filter that asks the authorization server.

    Args:
        cluster_name: the server's cluster.
        timeout: seconds for an answer, retries included; Envoy's default of 0.2 s is short for a server that
            fetches its keys.
        undecided_by: the filter before it, if it asks only about requests that are not marked as decided in the
            metadata of that filter.

    """
    marked = {"filter": undecided_by, "path": [{"key": DECIDED}], "value": {"bool_match": True}, "invert": True}
    return {
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": EXT_AUTHZ,
            "transport_api_version": "V3",
            "grpc_service": {
                "envoy_grpc": {"cluster_name": cluster_name},
                "timeout": f"{timeout:g}s",
                "retry_policy": retry_policy(timeout),
            },
            "failure_mode_allow": False,
            "status_on_error": {"code": "ServiceUnavailable"},
            "validate_mutations": True,
            "encode_raw_headers": True,
            "include_peer_certificate": True,
            "include_tls_session": True,
            **({} if undecided_by is None else {"filter_enabled_metadata": marked}),
        },
    }


def retry_policy(timeout: float) -> dict[str, Any]:
    """Return when to repeat a check without an answer; one that was answered, or takes long, is not repeated.

    Args:
        timeout: seconds for all tries.

    """
    return {
        "retry_on": "connect-failure,refused-stream,reset,unavailable,cancelled",
        "num_retries": 2,
        # Envoy uses max_interval as the timeout of each try as well, unless the timeout of all tries is not longer.
        "retry_back_off": {"base_interval": "0.01s", "max_interval": f"{timeout:g}s"},
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": TYPE + "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ],
        "host_selection_retry_max_attempts": 5,
    }


def grpc_route(cluster_name: str) -> dict[str, Any]:
    """Return a route for all gRPC calls, however long they last."""
    return {
        "match": {"prefix": "/", "grpc": {}},
        "route": {"cluster": cluster_name, **upstream.lasting()},
    }


def grpc_web_route(cluster_name: str) -> dict[str, Any]:
    """Return a route for all calls of gRPC-Web, which are not gRPC to Envoy before its filter has converted them."""
    kind = {"name": "content-type", "string_match": {"prefix": browsers.GRPC_WEB}}
    return {
        **grpc_route(cluster_name),
        "match": {"prefix": "/", "headers": [kind]},
        "typed_per_filter_config": browsers.content_type(),
    }


def unary_route(cluster_name: str, method: str) -> dict[str, Any]:
    """Return a route for one unary method, whose requests a listener may show to the authorization server.

    Envoy holds back a request until it is complete, so never name a method that streams its requests.

    Args:
        cluster_name: the upstream's cluster.
        method: the full method name, such as ``/authz.demo.v1.LedgerService/PostEntry``.

    """
    return {
        "match": {"path": method},
        "route": {"cluster": cluster_name, **upstream.lasting()},
        "typed_per_filter_config": _buffering(disabled=False),
    }


def http_route(cluster_name: str, *, prefix: str = "/") -> dict[str, Any]:
    """Return a route for plain HTTP requests."""
    return {"match": {"prefix": prefix}, "route": {"cluster": cluster_name, **upstream.answering()}}


def cluster(name: str, where: Sequence[str], *, http2: bool) -> dict[str, Any]:
    """Return a cluster of one or several endpoints.

    Args:
        name: the cluster's.
        where: ``HOST:PORT`` or ``unix:PATH`` of each.
        http2: whether they speak HTTP/2, as every gRPC server does.

    """
    is_fixed = addresses.is_fixed(where)
    over_tcp = not all(address.startswith(addresses.UNIX) for address in where)
    return {
        "name": name,
        "type": "STATIC" if is_fixed else "STRICT_DNS",
        **upstream.connections(by_name=not is_fixed, over_tcp=over_tcp),
        **edge.buffers(),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _HTTP_OPTIONS,
                **(upstream.http2_options() if http2 else upstream.http1_options()),
            }
        },
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": addresses.endpoints(where)}]},
    }


def _buffering(*, disabled: bool) -> dict[str, Any]:
    return {
        "envoy.filters.http.ext_authz": {
            "@type": TYPE + "extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
            "check_settings": {"disable_request_body_buffering": disabled},
        }
    }


def _dead_end() -> dict[str, Any]:
    return {"match": {"safe_regex": {"regex": _STEP_IN_DISGUISE}}, "direct_response": {"status": 403}}


def _router() -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": TYPE + "extensions.filters.http.router.v3.Router"},
    }
