"""The check for control planes: what their resources say, and that a real Envoy accepts its part."""

from typing import Any

import pytest
import yaml

from authz.call.metadata import TrustedMetadata
from authz.envoy.config import edge, parts
from authz.envoy.config.annotated import Document, render
from authz.envoy.config.authz_cluster import authz_cluster
from authz.envoy.config.mesh import Service, envoy_gateway, istio
from authz.errors import ConfigError
from tests.envoy.config.validation import validate

SERVICE = Service("checks", "edge", 9000)


def written(documents: list[Document]) -> list[Any]:
    return list(yaml.safe_load_all(render(documents)))


def patches() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = written(istio(SERVICE))[2]["spec"]["configPatches"]
    return found


def merged(into: Any, patch: Any) -> Any:
    """Return what Istio makes of both: protobuf's merge."""
    if isinstance(into, dict) and isinstance(patch, dict):
        return into | {key: merged(into.get(key), value) for key, value in patch.items()}
    if isinstance(into, list) and isinstance(patch, list):
        return [*into, *patch]
    return patch


def istio_makes() -> dict[str, Any]:
    """Return the listener that Istio makes, reduced to what our patches are for."""
    authz = {"@type": parts.EXT_AUTHZ, "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "1s"}}
    authz |= {
        "failure_mode_allow": False,
        "transport_api_version": "V3",
        "status_on_error": {"code": "ServiceUnavailable"},
    }
    made = parts.listener("ingress", "127.0.0.1:0", [], authz="authz", trusted=TrustedMetadata())
    manager = made["filter_chains"][0]["filters"][0]["typed_config"]
    for name in ("early_header_mutation_extensions", *edge.connection_manager()):
        del manager[name]
    manager["http_filters"][0]["typed_config"] = authz
    return made


def test_envoy_takes_what_istio_merges() -> None:
    of_manager, of_trailers, of_filter = (patch["patch"] for patch in patches())
    made = istio_makes()
    filters = made["filter_chains"][0]["filters"]
    filters[0] = merged(filters[0], of_manager["value"])
    http_filters = filters[0]["typed_config"]["http_filters"]
    http_filters[0] = merged(http_filters[0], of_filter["value"])

    assert http_filters[1] == of_trailers["value"] == parts.trailers_removal(TrustedMetadata())
    validate(parts.bootstrap([made], [authz_cluster("authz", ["127.0.0.1:1"])]))
    assert http_filters[0] == parts.ext_authz("authz")
    assert filters[0]["typed_config"]["early_header_mutation_extensions"] == [parts.early_removal(TrustedMetadata())]
    assert edge.connection_manager().items() <= filters[0]["typed_config"].items()


def test_istio_patches_only_what_there_is() -> None:
    assert [(patch["applyTo"], patch["patch"]["operation"]) for patch in patches()] == [
        ("NETWORK_FILTER", "MERGE"),
        ("HTTP_FILTER", "INSERT_BEFORE"),
        ("HTTP_FILTER", "MERGE"),
    ]
    assert {patch["match"]["context"] for patch in patches()} == {"GATEWAY"}


def test_istio_asks_the_service_and_fails_closed() -> None:
    mesh, policy, _ = written(istio(SERVICE))
    [provider] = mesh["meshConfig"]["extensionProviders"]

    assert provider["envoyExtAuthzGrpc"] == {
        "service": "checks.edge.svc.cluster.local",
        "port": 9000,
        "timeout": "1s",
        "failOpen": False,
        "statusOnError": "503",
    }
    assert mesh["meshConfig"]["pathNormalization"] == {"normalization": "DECODE_AND_MERGE_SLASHES"}
    assert (policy["apiVersion"], policy["kind"]) == ("security.istio.io/v1", "AuthorizationPolicy")
    assert policy["spec"]["action"] == "CUSTOM"
    assert policy["spec"]["provider"] == {"name": provider["name"]}
    assert policy["spec"]["rules"] == [{}]


def test_istio_strips_where_it_checks() -> None:
    _, policy, patch = written(istio(SERVICE))

    assert policy["spec"]["selector"]["matchLabels"] == patch["spec"]["workloadSelector"]["labels"]
    assert policy["metadata"]["namespace"] == patch["metadata"]["namespace"]


def test_envoy_gateway_asks_the_service_and_fails_closed() -> None:
    policy, _, _, grant = written(envoy_gateway(SERVICE))
    check = policy["spec"]["extAuth"]

    assert (policy["apiVersion"], policy["kind"]) == ("gateway.envoyproxy.io/v1alpha1", "SecurityPolicy")
    assert check["grpc"]["backendRefs"] == [
        {"group": "", "kind": "Service", "name": "checks", "namespace": "edge", "port": 9000}
    ]
    assert (check["failOpen"], check["timeout"]) == (False, "1s")
    assert check.keys().isdisjoint({"headersToExtAuth", "bodyToExtAuth", "http"})
    assert (grant["metadata"]["namespace"], grant["spec"]["from"][0]["namespace"]) == ("edge", "default")


def test_envoy_gateway_strips_before_everything_else() -> None:
    policy = written(envoy_gateway(SERVICE))[1]
    headers = policy["spec"]["headers"]
    removed = headers["earlyRequestHeaders"]["remove"]

    assert set(TrustedMetadata().removed) < set(removed)
    assert headers["withUnderscoresAction"] == "RejectRequest"
    # Its API takes no more.
    assert len(removed) <= 16


def test_envoy_gateway_keeps_the_limits_that_it_has_words_for() -> None:
    limits = written(envoy_gateway(SERVICE))[1]["spec"]

    assert limits["http2"] == {
        "maxConcurrentStreams": 100,
        "initialStreamWindowSize": "65536",
        "initialConnectionWindowSize": "1048576",
    }
    assert limits["connection"] == {"bufferLimit": "32768", "connectionLimit": {"value": 10_000}}


def test_envoy_gateway_ends_no_stream_and_takes_what_callers_may_open() -> None:
    _, of_clients, of_backends, _ = (document["spec"] for document in written(envoy_gateway(SERVICE)))

    assert of_clients["timeout"] == {"http": {"streamIdleTimeout": "0s"}}
    assert of_backends == {
        "targetRefs": of_clients["targetRefs"],
        "timeout": {"http": {"requestTimeout": "0s"}},
        "circuitBreaker": {
            "maxConnections": 10_000,
            "maxPendingRequests": 1_000_000,
            "maxParallelRequests": 1_000_000,
        },
        "http2": {"initialStreamWindowSize": "65536", "initialConnectionWindowSize": "2147483647"},
        "tcpKeepalive": {"idleTime": "60s", "interval": "10s", "probes": 3},
    }


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        (istio(SERVICE), ["overload_manager", "per_connection_buffer_limit_bytes", "VirtualService"]),
        (envoy_gateway(SERVICE), ["request_headers_timeout", "limit of the heap", "trailers"]),
    ],
    ids=["istio", "envoy-gateway"],
)
def test_limits_that_cannot_be_set_are_named(documents: list[Document], words: list[str]) -> None:
    text = " ".join(render(documents).replace("#", "").split())

    assert all(word in text for word in words)


@pytest.mark.parametrize("documents", [istio(SERVICE), envoy_gateway(SERVICE)], ids=["istio", "envoy-gateway"])
def test_first_lines_name_the_version_and_what_to_replace(documents: list[Document]) -> None:
    first, second, *_ = render(documents).splitlines()

    assert "# For " in first
    assert second.startswith("# Replace: ")


def test_service_is_found_in_its_address() -> None:
    assert Service.parse("authz", "checks.edge.svc.cluster.local:9000") == SERVICE


@pytest.mark.parametrize("address", ["127.0.0.1:1", "checks:1", "unix:/run/a.sock", "checks.edge:1", ".edge.svc:1"])
def test_anything_else_is_no_service(address: str) -> None:
    with pytest.raises(ConfigError, match=r"^authz: "):
        Service.parse("authz", address)
