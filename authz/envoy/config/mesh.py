"""The same check for control planes that write Envoy's configuration: Istio and Envoy Gateway."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from authz.call.metadata import TrustedMetadata
from authz.envoy.config import browsers, comments, edge, parts, upstream
from authz.envoy.config.annotated import Document
from authz.errors import ConfigError
from authz.judge.mesh import UNDECIDED
from authz.runtime.network.addresses import check_address

_TIMEOUT = 1.0
_MANAGER = "envoy.filters.network.http_connection_manager"
_BEFORE = "*/http_filters/envoy.filters.http.cors"
_GATEWAY = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gateway"}


@dataclass(frozen=True)
class Service:
    """The Kubernetes service of the authorization server."""

    name: str = "authz"
    namespace: str = "authz"
    port: int = 9191

    @classmethod
    def parse(cls, setting: str, address: str) -> "Service":
        """Return the service at ``NAME.NAMESPACE.svc.cluster.local:PORT``.

        Raises:
            ConfigError: it is not one; the message names ``setting``.

        """
        host, _, port = check_address(setting, address).rpartition(":")
        name, _, rest = host.partition(".")
        namespace, _, rest = rest.partition(".")
        if not name or not namespace or rest.split(".")[0] != "svc":
            raise ConfigError(f"{setting}: {address!a} is not NAME.NAMESPACE.svc.cluster.local:PORT")
        return cls(name, namespace, int(port))

    @property
    def host(self) -> str:
        """Its DNS name."""
        return f"{self.name}.{self.namespace}.svc.cluster.local"


def istio(service: Service, cors_origins: Sequence[str] = ()) -> list[Document]:
    """Return the configuration of Istio's ingress gateway.

    Args:
        service: of the authorization server.
        cors_origins: of the pages that may call from a browser.

    """
    return [_mesh_config(service), _authorization_policy(), _envoy_filter(cors_origins)]


def _mesh_config(service: Service) -> Document:
    provider = {
        "service": service.host,
        "port": service.port,
        "timeout": f"{_TIMEOUT:g}s",
        "failOpen": False,
        "statusOnError": "503",
    }
    return Document(
        data={
            "meshConfig": {
                "extensionProviders": [{"name": "authz", "envoyExtAuthzGrpc": provider}],
                "pathNormalization": {"normalization": "DECODE_AND_MERGE_SLASHES"},
            }
        },
        title="For Istio 1.24 and later. Made by `authz envoy-config --format istio`.\n"
        "Replace: the service, and the gateway's labels and namespace if yours is not istio-ingressgateway.\n"
        "This first part is for IstioOperator or the Helm chart istiod; the others are for kubectl apply.",
        comments={
            "*/timeout": "600 s by default, for which every request would wait.",
            "*/failOpen": "Undecided requests are refused. No request bodies, which would stop streams.",
            "*/statusOnError": "403 by default, as if the caller were forbidden while the server is down.",
            "*/pathNormalization": "One spelling per path, for the policy, for the check and for the backend.",
        },
    )


def _authorization_policy() -> Document:
    return Document(
        data={
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "authz", "namespace": "istio-system"},
            "spec": {
                "selector": {"matchLabels": {"istio": "ingressgateway"}},
                "action": "CUSTOM",
                "provider": {"name": "authz"},
                "rules": [{}],
            },
        },
        comments={
            "*/rules": "Every request is checked. Requests that a rule excludes here reach backends unchecked: with "
            "notMethods: [OPTIONS], a common advice for CORS, every OPTIONS does, and pages cannot read refusals. "
            "--cors-origin prints a filter before the check instead, which answers only preflights.",
        },
    )


_FILTER_TITLE = (
    "Settings that Istio's own resources lack.\n"
    "Limits of the whole process cannot be set here: overload_manager (max_heap_size_bytes, "
    "max_active_downstream_connections) and the runtime belong in the gateway's bootstrap, which an annotation "
    "(sidecar.istio.io/bootstrapOverride) changes; `authz envoy-config --format filter` prints them. Buffers of "
    "listeners (per_connection_buffer_limit_bytes) stay as Istio sets them.\n"
    "Routes and upstreams are Istio's as well. It does not end quiet or long streams, unless a VirtualService has "
    "a timeout, and does not limit open requests, unless a DestinationRule does; an upstream's tcpKeepalive is "
    "set there, too."
)


def _envoy_filter(cors_origins: Sequence[str]) -> Document:
    return Document(
        data={
            "apiVersion": "networking.istio.io/v1alpha3",
            "kind": "EnvoyFilter",
            "metadata": {"name": "authz", "namespace": "istio-system"},
            "spec": {
                "workloadSelector": {"labels": {"istio": "ingressgateway"}},
                "configPatches": _patches(cors_origins),
            },
        },
        title=_FILTER_TITLE,
        comments={
            **comments.HTTP,
            "*envoy.filters.http.ext_authz": "The filter that Istio makes of the policy above.",
            "*/configPatches/2": "Istio's own filter for CORS stands after the check. " + comments.HTTP[_BEFORE],
            "*/workloadSelector": "Only where requests are checked: a sidecar behind the gateway would remove what "
            "its check has added.",
        },
    )


def _patches(cors_origins: Sequence[str]) -> list[dict[str, Any]]:
    patches = [
        _patch(
            "NETWORK_FILTER",
            {"name": _MANAGER},
            {
                "name": _MANAGER,
                "typed_config": {
                    "@type": parts.HTTP_MANAGER,
                    **edge.connection_manager(),
                    "early_header_mutation_extensions": [parts.early_removal(TrustedMetadata())],
                },
            },
        ),
        _patch(
            "HTTP_FILTER",
            {"name": _MANAGER, "subFilter": {"name": "envoy.filters.http.router"}},
            parts.trailers_removal(TrustedMetadata()),
            operation="INSERT_BEFORE",
        ),
        _patch(
            "HTTP_FILTER",
            {"name": _MANAGER, "subFilter": {"name": "envoy.filters.http.ext_authz"}},
            _ext_authz(),
        ),
    ]
    if cors_origins:
        patches += [
            _patch("HTTP_FILTER", {"name": _MANAGER}, browsers.cors_filter(), "INSERT_FIRST"),
            {
                "applyTo": "VIRTUAL_HOST",
                "match": {"context": "GATEWAY"},
                "patch": {"operation": "MERGE", "value": browsers.virtual_host(cors_origins)},
            },
        ]
    return patches


def _ext_authz() -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": parts.EXT_AUTHZ,
            "grpc_service": {"retry_policy": parts.retry_policy(_TIMEOUT)},
            "validate_mutations": True,
            "encode_raw_headers": True,
            "include_peer_certificate": True,
            "include_tls_session": True,
        },
    }


def _patch(
    applies_to: str, matching: dict[str, Any], value: dict[str, Any], operation: str = "MERGE"
) -> dict[str, Any]:
    return {
        "applyTo": applies_to,
        "match": {"context": "GATEWAY", "listener": {"filterChain": {"filter": matching}}},
        "patch": {"operation": operation, "value": value},
    }


def envoy_gateway(service: Service, cors_origins: Sequence[str] = ()) -> list[Document]:
    """Return the policies of an Envoy Gateway; the arguments are those of :func:`istio`."""
    return [
        _security_policy(service, cors_origins),
        _client_traffic_policy(),
        _backend_traffic_policy(),
        _reference_grant(service),
    ]


def _security_policy(service: Service, cors_origins: Sequence[str]) -> Document:
    return Document(
        data={
            **_policy("SecurityPolicy"),
            "spec": {
                "targetRefs": [_GATEWAY],
                **({"cors": _cors(cors_origins)} if cors_origins else {}),
                "extAuth": {
                    "grpc": {
                        "backendRefs": [_reference(service)],
                        "backendSettings": {
                            "retry": {
                                "numRetries": 2,
                                "retryOn": {"triggers": _TRIGGERS},
                                "perRetry": {"backOff": {"baseInterval": "10ms", "maxInterval": f"{_TIMEOUT:g}s"}},
                            }
                        },
                    },
                    "failOpen": False,
                    "timeout": f"{_TIMEOUT:g}s",
                },
            },
        },
        title="For Envoy Gateway 1.6 and later. Made by `authz envoy-config --format envoy-gateway`.\n"
        "Replace: the service, and name and namespace of the Gateway.",
        comments={
            "*/cors": "Answers preflights, which have no token, before the check; any other OPTIONS is checked. No "
            "allowCredentials: a page sets the token's header itself; browsers do not add it, as they do with cookies.",
            "*/extAuth": "The server gets all headers (no headersToExtAuth), and no bodies, which would stop streams.",
            "*/maxInterval": comments.HTTP["*/max_interval"],
            "*/retry": "A check without an answer is repeated: it has no effect, except that quotas may count it.",
            "*/failOpen": "Undecided requests are refused; if true, a mistake in this policy would let all pass, too.",
            "*/timeout": "10 s by default, for which every request would wait.",
        },
    )


def _reference(service: Service) -> dict[str, Any]:
    return {
        "group": "",
        "kind": "Service",
        "name": service.name,
        "namespace": service.namespace,
        "port": service.port,
    }


def _cors(origins: Sequence[str]) -> dict[str, Any]:
    return {
        "allowOrigins": list(origins),
        "allowMethods": browsers.METHODS.split(", "),
        "allowHeaders": browsers.REQUEST_HEADERS.split(", "),
        "exposeHeaders": browsers.RESPONSE_HEADERS.split(", "),
        "maxAge": f"{browsers.MAX_AGE_SECONDS}s",
    }


_TRIGGERS = ["connect-failure", "refused-stream", "reset", "unavailable"]


def _client_traffic_policy() -> Document:
    return Document(
        data={
            **_policy("ClientTrafficPolicy"),
            "spec": {
                "targetRefs": [_GATEWAY],
                "headers": {
                    "withUnderscoresAction": "RejectRequest",
                    "earlyRequestHeaders": {"remove": [*sorted(TrustedMetadata().removed), UNDECIDED]},
                },
                "path": {"escapedSlashesAction": "UnescapeRedirect", "disableMergeSlashes": False},
                "connection": {
                    "bufferLimit": str(edge.BUFFER_BYTES),
                    "connectionLimit": {"value": edge.MAX_CONNECTIONS},
                },
                "timeout": {"http": {"streamIdleTimeout": "0s"}},
                "http2": {
                    "maxConcurrentStreams": edge.MAX_STREAMS,
                    "initialStreamWindowSize": str(edge.STREAM_WINDOW),
                    "initialConnectionWindowSize": str(edge.CONNECTION_WINDOW),
                },
            },
        },
        title="Cannot be set here: request_headers_timeout, max_headers_count and max_request_headers_kb, which need "
        "an EnvoyPatchPolicy. The limit of the heap follows the memory limit of the container, which the "
        "resource EnvoyProxy sets. No timeout.http.requestReceivedTimeout, which would end streams of requests. "
        "HTTP/2 keepalive (connection_keepalive) and the removal of trusted names from trailers and after the prefixes "
        "of grpc-gateway need an EnvoyPatchPolicy, too; the server's answers remove the latter as well.",
        comments={
            "*/streamIdleTimeout": "5 minutes by default, after which a quiet gRPC stream is reset.",
            "*/connectionLimit": comments.BOOTSTRAP["*/max_active_downstream_connections"],
            "*/maxConcurrentStreams": comments.HTTP["*/max_concurrent_streams"],
            "*/initialStreamWindowSize": comments.HTTP["*/initial_stream_window_size"],
            "*/withUnderscoresAction": "Some servers read x_org_id as x-org-id. If your callers send metadata such as "
            "x_custom: DropHeader, or Allow.",
            "*/earlyRequestHeaders": "Only the authorization server may say who calls: trusted names are removed "
            "first, so also on routes that have no check.",
            "*/path": "One spelling per path: else /public/../private is routed as one and served as the other.",
        },
    )


def _backend_traffic_policy() -> Document:
    return Document(
        data={
            **_policy("BackendTrafficPolicy"),
            "spec": {
                "targetRefs": [_GATEWAY],
                "timeout": {"http": {"requestTimeout": "0s"}},
                "circuitBreaker": {
                    "maxConnections": edge.MAX_CONNECTIONS,
                    "maxPendingRequests": upstream.MOST_REQUESTS,
                    "maxParallelRequests": upstream.MOST_REQUESTS,
                },
                "http2": {
                    "initialStreamWindowSize": str(edge.STREAM_WINDOW),
                    "initialConnectionWindowSize": str(upstream.CONNECTION_WINDOW),
                },
                "tcpKeepalive": {
                    "idleTime": f"{upstream.PROBED_AFTER_SECONDS}s",
                    "interval": f"{upstream.PROBE_SECONDS}s",
                    "probes": upstream.PROBES,
                },
            },
        },
        comments={
            "*/requestTimeout": "15 s by default, after which a gRPC stream is reset, and events that a server sends "
            "are cut. Backends keep the deadlines of calls; an HTTPRoute may have timeouts of its own.",
            "*/circuitBreaker": comments.UPSTREAMS["*upstream/circuit_breakers"],
            "*/initialConnectionWindowSize": "Callers share connections to upstreams: one that does not read must not "
            "use up the window of all.",
            "*/tcpKeepalive": "None by default: Envoy would not notice an upstream that has vanished.",
        },
    )


def _reference_grant(service: Service) -> Document:
    return Document(
        data={
            "apiVersion": "gateway.networking.k8s.io/v1beta1",
            "kind": "ReferenceGrant",
            "metadata": {"name": "authz", "namespace": service.namespace},
            "spec": {
                "from": [{"group": "gateway.envoyproxy.io", "kind": "SecurityPolicy", "namespace": "default"}],
                "to": [{"group": "", "kind": "Service", "name": service.name}],
            },
        },
        title="Permits the policy to name a service of another namespace.",
    )


def _policy(kind: str) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": "authz", "namespace": "default"},
    }
