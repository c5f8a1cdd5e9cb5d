"""The configuration of Envoy that Istio and Envoy Gateway make of the resources that we print, in our own words.

Read in their published golden files and sources, not made by them:

- Istio: ``pilot/pkg/security/authz/builder/testdata/http`` (``custom-grpc-provider-out1`` and ``-out2``,
  ``deny-empty-rule-out``), and routes of gateways as ``istioctl proxy-config`` prints them. Its own filters for
  metadata, statistics and faults, which are not in the wheel's Envoy, are left out.
- Envoy Gateway: ``internal/xds/translator/testdata`` (``in`` and ``out/xds-ir/ext-auth``) and ``listener.go``.
"""

from collections.abc import Sequence
from typing import Any

from authz.envoy.config import parts
from authz.envoy.config.mesh import Service, envoy_gateway, istio
from authz.envoy.config.parts import TYPE

SERVICE = Service()
Config = dict[str, Any]
_RBAC, _EXT_AUTHZ = "envoy.filters.http.rbac", "envoy.filters.http.ext_authz"
_MANAGER = "envoy.filters.network.http_connection_manager"
_GRPC = [{"name": "content-type", "string_match": {"prefix": "application/grpc"}}]
_MOST = 4_294_967_295


def merged(into: Any, patch: Any) -> Any:
    """Return what Istio makes of both: protobuf's merge."""
    if isinstance(into, dict) and isinstance(patch, dict):
        return into | {key: merged(into.get(key), value) for key, value in patch.items()}
    if isinstance(into, list) and isinstance(patch, list):
        return [*into, *patch]
    return patch


# ---- Istio ----


def istio_gateway(authz: str, grpc: str, http: str) -> Config:
    """Return the bootstrap of an ingress gateway; the arguments are the addresses of server and upstreams."""
    mesh, policy, envoy_filter = (document.data for document in istio(SERVICE))
    provider = mesh["meshConfig"]["extensionProviders"][0]["envoyExtAuthzGrpc"]
    name = f"outbound|{provider['port']}||{provider['service']}"
    assert mesh["meshConfig"]["pathNormalization"] == {"normalization": "DECODE_AND_MERGE_SLASHES"}
    route: Config = {
        "timeout": "0s",
        "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"},
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,unavailable,cancelled",
            "num_retries": 2,
            "host_selection_retry_max_attempts": 5,
        },
    }
    manager = {
        "@type": parts.HTTP_MANAGER,
        "stat_prefix": "outbound_0.0.0.0_8080",
        "server_name": "istio-envoy",
        "use_remote_address": True,
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"subject": True, "dns": True, "uri": True},
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
        "stream_idle_timeout": "0s",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": _routes(route, route),
        "http_filters": [*_custom_policy(policy, provider, name), _cors(), _router()],
    }
    filters = _patched({"name": _MANAGER, "typed_config": manager}, envoy_filter)
    check = parts.cluster(name, [authz], http2=True)
    check["circuit_breakers"] = {"thresholds": [{"max_requests": _MOST, "max_pending_requests": _MOST}]}
    return _bootstrap(filters, [check], grpc, http)


def _custom_policy(policy: Config, provider: Config, cluster: str) -> list[Config]:
    """Return the filters of a policy with the action CUSTOM: the first marks requests, the second asks about them."""
    assert policy["spec"]["action"] == "CUSTOM"
    assert policy["spec"]["rules"] == [{}]
    where = f"ns[{policy['metadata']['namespace']}]-policy[{policy['metadata']['name']}]-rule[0]"
    anything = {
        "permissions": [{"and_rules": {"rules": [{"any": True}]}}],
        "principals": [{"and_ids": {"ids": [{"any": True}]}}],
    }
    marking = {
        "@type": TYPE + "extensions.filters.http.rbac.v3.RBAC",
        "shadow_rules": {"action": "DENY", "policies": {f"istio-ext-authz-{where}": anything}},
        "shadow_rules_stat_prefix": "istio_ext_authz_",
    }
    asking = {
        "@type": parts.EXT_AUTHZ,
        "transport_api_version": "V3",
        "failure_mode_allow": provider["failOpen"],
        "status_on_error": {"code": int(provider["statusOnError"])},
        "filter_enabled_metadata": {
            "filter": _RBAC,
            "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
            "value": {"string_match": {"prefix": "istio-ext-authz"}},
        },
        "grpc_service": {
            "envoy_grpc": {"cluster_name": cluster, "authority": provider["service"]},
            "timeout": provider["timeout"],
        },
    }
    return [{"name": _RBAC, "typed_config": marking}, {"name": _EXT_AUTHZ, "typed_config": asking}]


def _patched(manager: Config, envoy_filter: Config) -> Config:
    """Return a connection manager with the patches of an EnvoyFilter."""
    for patch in envoy_filter["spec"]["configPatches"]:
        how, value = patch["patch"]["operation"], patch["patch"]["value"]
        filters: list[Config] = manager["typed_config"]["http_filters"]
        if patch["applyTo"] == "NETWORK_FILTER":
            manager = merged(manager, value)
            continue
        wanted = patch["match"]["listener"]["filterChain"]["filter"]["subFilter"]["name"]
        [place] = [place for place, one in enumerate(filters) if one["name"] == wanted]
        if how == "MERGE":
            filters[place] = merged(filters[place], value)
        else:
            filters.insert(place, value)
    return manager


# ---- Envoy Gateway ----


def gateway(authz: str, grpc: str, http: str) -> Config:
    """Return the bootstrap of an Envoy Gateway; the arguments are those of :func:`istio_gateway`."""
    of_security, of_clients, of_backends, _grant = (document.data for document in envoy_gateway(SERVICE))
    check, clients, backends = of_security["spec"]["extAuth"], of_clients["spec"], of_backends["spec"]
    policy = f"securitypolicy/{of_security['metadata']['namespace']}/{of_security['metadata']['name']}"
    name, cluster = f"{_EXT_AUTHZ}/{policy}", f"{policy}/authz/authz"
    retry = check["grpc"]["backendSettings"]["retry"]
    asking = {
        "@type": parts.EXT_AUTHZ,
        "transport_api_version": "V3",
        "grpc_service": {
            "envoy_grpc": {"cluster_name": cluster, "authority": f"{SERVICE.name}.{SERVICE.namespace}:{SERVICE.port}"},
            "timeout": check["timeout"],
            "retry_policy": {"retry_on": ",".join(retry["retryOn"]["triggers"]), "num_retries": retry["numRetries"]},
        },
    }
    assert check["failOpen"] is False
    route = {
        "timeout": backends["timeout"]["http"]["requestTimeout"],
        "upgrade_configs": [{"upgrade_type": "websocket"}],
    }
    enabled = {name: {"@type": TYPE + "config.route.v3.FilterConfig", "config": {}}}
    manager = {
        "@type": parts.HTTP_MANAGER,
        "stat_prefix": "http-10080",
        "use_remote_address": True,
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
        "common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"},
        "http2_protocol_options": {
            "max_concurrent_streams": clients["http2"]["maxConcurrentStreams"],
            "initial_stream_window_size": int(clients["http2"]["initialStreamWindowSize"]),
            "initial_connection_window_size": int(clients["http2"]["initialConnectionWindowSize"]),
        },
        "stream_idle_timeout": clients["timeout"]["http"]["streamIdleTimeout"],
        "early_header_mutation_extensions": [_removal(clients["headers"]["earlyRequestHeaders"]["remove"])],
        "route_config": _routes(route, route, typed_per_filter_config=enabled),
        "http_filters": [
            {"name": name, "disabled": True, "typed_config": asking},
            _router(suppress_envoy_headers=True),
        ],
    }
    made = parts.cluster(cluster, [authz], http2=True)
    return _bootstrap({"name": _MANAGER, "typed_config": manager}, [made], grpc, http)


def _removal(names: Sequence[str]) -> Config:
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": TYPE + "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": [{"remove": name} for name in names],
        },
    }


# ---- Both ----


def _routes(grpc: Config, http: Config, **more: Any) -> Config:
    routes = [
        {"match": {"prefix": "/", "headers": _GRPC}, "route": {"cluster": "grpc", **grpc}, **more},
        {"match": {"prefix": "/"}, "route": {"cluster": "http", **http}, **more},
    ]
    return {"name": "routes", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}


def _cors() -> Config:
    return {"name": "envoy.filters.http.cors", "typed_config": {"@type": TYPE + "extensions.filters.http.cors.v3.Cors"}}


def _router(**options: bool) -> Config:
    kind = TYPE + "extensions.filters.http.router.v3.Router"
    return {"name": "envoy.filters.http.router", "typed_config": {"@type": kind, **options}}


def _bootstrap(manager: Config, clusters: list[Config], grpc: str, http: str) -> Config:
    listener = {
        "name": "ingress",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [manager]}],
    }
    upstreams = [parts.cluster("grpc", [grpc], http2=True), parts.cluster("http", [http], http2=False)]
    return {
        "static_resources": {"listeners": [listener], "clusters": [*clusters, *upstreams]},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
    }
