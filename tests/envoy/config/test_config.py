"""Envoy's configuration: what it must say, and that the real Envoy accepts it."""

import itertools
import re
from typing import Any

import pytest

from authz.call.metadata import TrustedMetadata
from authz.envoy.config import (
    bootstrap,
    cluster,
    comments,
    edge,
    ext_authz,
    grpc_route,
    http_route,
    listener,
    unary_route,
)
from authz.envoy.config.annotated import Document, render
from authz.envoy.config.authz_cluster import authz_cluster
from authz.envoy.config.parts import retry_policy
from authz.errors import ConfigError
from authz.runtime.network.addresses import check_address
from tests.envoy.config.validation import validate

TRUSTED = TrustedMetadata()
ROUTES = [grpc_route("ledger"), http_route("web", prefix="/web")]


def manager_of(config: dict[str, Any]) -> dict[str, Any]:
    [chain] = config["filter_chains"]
    [connection_manager] = chain["filters"]
    assert connection_manager["name"] == "envoy.filters.network.http_connection_manager"
    manager: dict[str, Any] = connection_manager["typed_config"]
    return manager


@pytest.fixture
def manager() -> dict[str, Any]:
    return manager_of(listener("main", "127.0.0.1:10000", ROUTES, authz="authz", trusted=TRUSTED))


def complete(authz: str, upstream: str = "127.0.0.1:50051") -> dict[str, Any]:
    return bootstrap(
        [
            listener("main", "127.0.0.1:0", ROUTES, authz="authz", trusted=TRUSTED),
            listener("other", "[::1]:0", ROUTES, authz="authz", trusted=TrustedMetadata(org_id="x-acme-org")),
        ],
        [
            authz_cluster("authz", [authz]),
            cluster("ledger", [upstream], http2=True),
            cluster("web", ["127.0.0.1:8080", "127.0.0.1:8081"], http2=False),
        ],
        admin="127.0.0.1:0",
    )


@pytest.mark.parametrize(
    ("authz", "upstream"),
    [
        pytest.param("unix:/run/authz.sock", "127.0.0.1:50051", id="unix"),
        pytest.param("127.0.0.1:9191", "[::1]:50051", id="tcp"),
        pytest.param("authz.example:9191", "ledger.example:50051", id="dns"),
        pytest.param("localhost:9191", "localhost:50051", id="localhost"),
    ],
)
def test_envoy_accepts_the_configuration(authz: str, upstream: str) -> None:
    validate(complete(authz, upstream))


def test_check_never_lets_through_what_could_not_be_decided() -> None:
    assert ext_authz("authz") == {
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "grpc_service": {
                "envoy_grpc": {"cluster_name": "authz"},
                "timeout": "1s",
                "retry_policy": retry_policy(1),
            },
            "failure_mode_allow": False,
            "status_on_error": {"code": "ServiceUnavailable"},
            "validate_mutations": True,
            "encode_raw_headers": True,
            "include_peer_certificate": True,
            "include_tls_session": True,
        },
    }


def test_check_without_an_answer_is_repeated_elsewhere() -> None:
    policy = retry_policy(0.5)
    [predicate] = policy["retry_host_predicate"]

    assert policy["retry_on"] == "connect-failure,refused-stream,reset,unavailable,cancelled"
    assert policy["num_retries"] == 2
    # Else Envoy gives up a try before its time, and repeats it.
    assert policy["retry_back_off"]["max_interval"] == "0.5s"
    assert predicate["name"] == "envoy.retry_host_predicates.previous_hosts"


@pytest.mark.parametrize(("timeout", "text"), [(0.25, "0.25s"), (2, "2s"), (0.001, "0.001s")])
def test_timeout_is_written_as_envoy_reads_it(timeout: float, text: str) -> None:
    assert ext_authz("authz", timeout=timeout)["typed_config"]["grpc_service"]["timeout"] == text


def test_check_runs_before_the_router(manager: dict[str, Any]) -> None:
    assert [item["name"] for item in manager["http_filters"]] == [
        "envoy.filters.http.ext_authz",
        "envoy.filters.http.header_mutation",
        "envoy.filters.http.router",
    ]


@pytest.mark.parametrize("trusted", [TRUSTED, TrustedMetadata(org_id="x-acme-org")], ids=["usual", "other"])
def test_every_reserved_name_is_stripped_before_everything_else(trusted: TrustedMetadata) -> None:
    manager = manager_of(listener("main", "127.0.0.1:0", ROUTES, authz="authz", trusted=trusted))
    [early] = manager["early_header_mutation_extensions"]
    removed = [mutation["remove"] for mutation in early["typed_config"]["mutations"]]
    prefixed = [prefix + name for prefix in ("grpc-metadata-", "grpcgateway-") for name in trusted.reserved]

    assert sorted(removed) == sorted([*trusted.reserved, *prefixed, "x-envoy-auth-failure-mode-allowed"])
    assert {trusted.org_id, f"{trusted.org_id}-bin", trusted.org_id.replace("-", "_")} <= set(removed)


def test_trailers_lose_the_same_names(manager: dict[str, Any]) -> None:
    [early] = manager["early_header_mutation_extensions"]
    _, trailers, _ = manager["http_filters"]

    assert trailers["typed_config"]["mutations"] == {
        "request_trailers_mutations": early["typed_config"]["mutations"],
    }


def test_paths_have_one_spelling_before_they_are_routed(manager: dict[str, Any]) -> None:
    options = ("normalize_path", "merge_slashes", "path_with_escaped_slashes_action")

    assert [manager[option] for option in options] == [True, True, "UNESCAPE_AND_REDIRECT"]


def test_grpc_calls_may_last() -> None:
    assert grpc_route("ledger") == {
        "match": {"prefix": "/", "grpc": {}},
        "route": {"cluster": "ledger", "timeout": "0s", "idle_timeout": "0s"},
    }
    assert unary_route("ledger", "/a.B/C")["route"] == grpc_route("ledger")["route"]


def test_answers_over_http_may_last_while_something_is_sent() -> None:
    assert http_route("web")["route"] == {"cluster": "web", "timeout": "0s", "idle_timeout": "300s"}


@pytest.mark.parametrize("http2", [True, False])
def test_upstream_takes_whatever_callers_may_open(http2: bool) -> None:  # noqa: FBT001 - a parameter of the test
    made = cluster("ledger", ["127.0.0.1:1"], http2=http2)

    assert made["circuit_breakers"] == {
        "thresholds": [{"max_connections": 10_000, "max_pending_requests": 1_000_000, "max_requests": 1_000_000}]
    }
    assert edge.MAX_CONNECTIONS * edge.MAX_STREAMS == 1_000_000


@pytest.mark.parametrize("http2", [True, False])
def test_peers_that_are_gone_are_noticed(http2: bool, manager: dict[str, Any]) -> None:  # noqa: FBT001 - as above
    over_tcp, over_unix = (cluster("a", [where], http2=http2) for where in ("127.0.0.1:1", "unix:/run/a.sock"))

    assert manager["http2_protocol_options"]["connection_keepalive"] == {"interval": "60s", "timeout": "20s"}
    assert over_tcp["upstream_connection_options"] == {
        "tcp_keepalive": {"keepalive_time": 60, "keepalive_interval": 10, "keepalive_probes": 3}
    }
    assert "upstream_connection_options" not in over_unix
    # A gRPC server takes PINGs without calls for an attack.
    assert "connection_keepalive" not in str(over_tcp)


def test_connection_over_http_1_is_left_before_its_server_leaves_it() -> None:
    [of_http1] = cluster("web", ["127.0.0.1:1"], http2=False)["typed_extension_protocol_options"].values()
    [of_grpc] = cluster("ledger", ["127.0.0.1:1"], http2=True)["typed_extension_protocol_options"].values()

    assert of_http1["common_http_protocol_options"] == {"idle_timeout": "1s"}
    assert "common_http_protocol_options" not in of_grpc


def test_routes_keep_their_order(manager: dict[str, Any]) -> None:
    [host] = manager["route_config"]["virtual_hosts"]
    dead_end, *routes = host.pop("routes")

    assert (host, routes) == ({"name": "all", "domains": ["*"]}, ROUTES)
    assert dead_end["direct_response"] == {"status": 403}


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("/open/..;/accounts", True),
        ("/open/..%3b/accounts", True),
        ("/open/.%2E%3Bx=1/accounts", True),
        ("/open/.;/accounts", True),
        ("/open/%2e%2e;", True),
        ("/open/...;/accounts", False),
        ("/open/a..;/accounts", False),
        ("/open;x=1/accounts", False),
        ("/authz.demo.v1.LedgerService/PostEntry", False),
    ],
)
def test_steps_upwards_in_disguise_have_no_route(manager: dict[str, Any], path: str, *, is_one: bool) -> None:
    match = manager["route_config"]["virtual_hosts"][0]["routes"][0]["match"]

    assert (re.fullmatch(match["safe_regex"]["regex"], path) is not None) is is_one


@pytest.mark.parametrize(
    ("addresses", "kind"),
    [
        (["127.0.0.1:1"], "STATIC"),
        (["[::1]:1"], "STATIC"),
        (["unix:/run/authz.sock"], "STATIC"),
        (["authz.example:1"], "STRICT_DNS"),
        (["127.0.0.1:1", "authz.example:1"], "STRICT_DNS"),
    ],
)
def test_names_are_resolved_and_addresses_are_not(addresses: list[str], kind: str) -> None:
    assert cluster("authz", addresses, http2=True)["type"] == kind


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:9191", {"socket_address": {"address": "127.0.0.1", "port_value": 9191}}),
        ("[::1]:9191", {"socket_address": {"address": "::1", "port_value": 9191}}),
        ("authz.example:9191", {"socket_address": {"address": "authz.example", "port_value": 9191}}),
        ("unix:/run/a:b.sock", {"pipe": {"path": "/run/a:b.sock"}}),
    ],
)
def test_address_is_a_socket_or_a_pipe(address: str, expected: dict[str, Any]) -> None:
    assert listener("main", address, ROUTES, authz="authz", trusted=TRUSTED)["address"] == expected
    [endpoints] = cluster("authz", [address], http2=True)["load_assignment"]["endpoints"]
    assert endpoints == {"lb_endpoints": [{"endpoint": {"address": expected}}]}


def test_every_address_of_ipv6_is_every_address() -> None:
    """As for ``authz serve``; by default Envoy accepts only IPv6."""
    made = listener("main", "[::]:1", ROUTES, authz="authz", trusted=TRUSTED)

    assert made["address"] == {"socket_address": {"address": "::", "port_value": 1, "ipv4_compat": True}}


@pytest.mark.parametrize("host", ["localhost", "LocalHost"])
def test_localhost_is_no_name_for_dns(host: str) -> None:
    """A server that is told to listen on localhost may have taken 127.0.0.1 alone, or ``::1``."""
    made = cluster("ledger", [f"{host}:1"], http2=True)
    [endpoints] = made["load_assignment"]["endpoints"]
    first, second = ({"socket_address": {"address": number, "port_value": 1}} for number in ("127.0.0.1", "::1"))

    assert made["type"] == "STATIC"
    assert endpoints == {
        "lb_endpoints": [{"endpoint": {"address": first, "additional_addresses": [{"address": second}]}}]
    }
    assert listener("main", f"{host}:1", ROUTES, authz="authz", trusted=TRUSTED)["address"] == first


def test_localhost_beside_a_name_is_127_0_0_1() -> None:
    """Envoy accepts no second address in a cluster with DNS."""
    made = cluster("ledger", ["localhost:1", "ledger.example:1"], http2=True)

    assert (made["type"], made["dns_lookup_family"]) == ("STRICT_DNS", "V4_PREFERRED")
    assert "additional_addresses" not in str(made)
    assert "dns_lookup_family" not in cluster("ledger", ["localhost:1"], http2=True)


@pytest.mark.parametrize(("http2", "option"), [(True, "http2_protocol_options"), (False, "http_protocol_options")])
def test_cluster_speaks_one_version_of_http(http2: bool, option: str) -> None:  # noqa: FBT001 - a parameter of the test
    [options] = cluster("ledger", ["127.0.0.1:1"], http2=http2)["typed_extension_protocol_options"].values()

    assert options["explicit_http_config"].keys() == {option}


def test_limits_of_the_edge_are_those_that_are_recommended_and_end_no_stream(manager: dict[str, Any]) -> None:
    """Those of Envoy's "Configuring Envoy as an edge proxy", but for request_timeout and stream_idle_timeout."""
    whole = complete("127.0.0.1:9191")
    [heap, connections] = whole["overload_manager"]["resource_monitors"]

    assert {name: manager[name] for name in ("use_remote_address", "request_headers_timeout")} == {
        "use_remote_address": True,
        "request_headers_timeout": "10s",
    }
    assert manager["max_request_headers_kb"] == 60
    assert manager["common_http_protocol_options"] == {
        "max_headers_count": 100,
        "headers_with_underscores_action": "REJECT_REQUEST",
    }
    assert manager["http2_protocol_options"] == {
        "max_concurrent_streams": 100,
        "initial_stream_window_size": 65_536,
        "initial_connection_window_size": 1_048_576,
        "connection_keepalive": {"interval": "60s", "timeout": "20s"},
    }
    assert manager.keys().isdisjoint({"request_timeout", "stream_idle_timeout"})
    assert "max_stream_duration" not in str(whole)
    assert heap["typed_config"]["max_heap_size_bytes"] == 1 << 30
    assert connections["typed_config"]["max_active_downstream_connections"] == 10_000
    assert [action["name"].rpartition(".")[2] for action in whole["overload_manager"]["actions"]] == [
        "shrink_heap",
        "stop_accepting_requests",
    ]
    assert whole["admin"]["ignore_global_conn_limit"] is True
    for part in (*whole["static_resources"]["listeners"], *whole["static_resources"]["clusters"]):
        assert part["per_connection_buffer_limit_bytes"] == 32_768


def test_every_limit_has_its_reason() -> None:
    text = render([Document(data=complete("127.0.0.1:9191"), comments=comments.BOOTSTRAP)])
    lines = [line.strip() for line in text.splitlines()]
    limits = [
        *edge.connection_manager(),
        *edge.connection_manager()["common_http_protocol_options"],
        "max_concurrent_streams",
        "connection_keepalive",
        "initial_stream_window_size",
        "per_connection_buffer_limit_bytes",
        *edge.process(),
        "max_heap_size_bytes",
        "max_active_downstream_connections",
        "ignore_global_conn_limit",
    ]
    unexplained = [
        name
        for name in limits
        if not name.endswith("_protocol_options")
        and not any(
            line.startswith(f"{name}:") and before.startswith("#") for before, line in itertools.pairwise(lines)
        )
    ]

    assert unexplained == []


def test_administration_interface_is_off_unless_asked_for() -> None:
    assert "admin" not in bootstrap([], [])


@pytest.mark.parametrize(
    "address", ["127.0.0.1:0", "[::1]:65535", "authz.example:9191", "unix:/run/a.sock", "unix:a:b/c"]
)
def test_address_may_be_host_and_port_or_a_socket(address: str) -> None:
    assert check_address("listen", address) == address


@pytest.mark.parametrize(
    "address", ["", "9191", ":9191", "host", "host:", "host:http", "host:-1", "host:65536", "host:\u0661", "unix:"]
)
def test_anything_else_is_no_address(address: str) -> None:
    with pytest.raises(ConfigError, match=r"^listen: "):
        check_address("listen", address)
