"""The cluster of the authorization servers: where they are found, and how Envoy watches them."""

from typing import Any

import pytest

from authz.envoy.config.authz_cluster import Tls, authz_cluster, check_authz_address, endpoints
from authz.errors import ConfigError


@pytest.mark.parametrize(
    ("addresses", "workers", "expected"),
    [
        (["unix:/run/a.sock"], 1, ["unix:/run/a.sock"]),
        (["unix:/run/a.sock"], 3, ["unix:/run/a.sock.0", "unix:/run/a.sock.1", "unix:/run/a.sock.2"]),
        (["127.0.0.1:9191"], 3, ["127.0.0.1:9191"]),
        (["tls:authz.example:9191"], 3, ["tls:authz.example:9191"]),
        (["0.0.0.0:9191", "tls:[::]:9192"], 1, ["127.0.0.1:9191", "tls:[::1]:9192"]),
    ],
)
def test_every_socket_of_a_worker_is_an_endpoint(addresses: list[str], workers: int, expected: list[str]) -> None:
    assert endpoints(addresses, workers=workers) == expected


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "tls:a.example:1", "tls:[::1]:1", "unix:/a.sock"])
def test_a_server_may_be_asked_by_tls(address: str) -> None:
    assert check_authz_address("authz", address) == address


@pytest.mark.parametrize("address", ["", "host", "tls:", "tls:host", "tls:unix:/run/a.sock", "unix:", "127.0.0.1:0"])
def test_a_server_must_be_somewhere(address: str) -> None:
    with pytest.raises(ConfigError, match=r"^authz: "):
        check_authz_address("authz", address)


def test_sick_servers_are_asked_only_while_all_are_sick() -> None:
    cluster = authz_cluster("authz", ["127.0.0.1:1"])
    [check] = cluster["health_checks"]

    assert (check["unhealthy_threshold"], check["healthy_threshold"], check["no_traffic_interval"]) == (1, 1, "1s")
    assert cluster["common_lb_config"] == {"healthy_panic_threshold": {"value": 1}, "update_merge_window": "0s"}


def tls_of(*addresses: str, tls: Tls | None = None) -> dict[str, Any]:
    context: dict[str, Any] = authz_cluster("authz", addresses, tls=tls)["transport_socket"]["typed_config"]
    return context


def test_without_tls_nothing_is_encrypted() -> None:
    assert "transport_socket" not in authz_cluster("authz", ["127.0.0.1:1"])


@pytest.mark.parametrize(
    ("address", "host", "kind", "sni"),
    [
        ("tls:authz.example:1", "authz.example", "DNS", "authz.example"),
        ("tls:127.0.0.1:1", "127.0.0.1", "IP_ADDRESS", None),
        ("tls:[::1]:1", "::1", "IP_ADDRESS", None),
    ],
)
def test_certificate_must_hold_the_host(address: str, host: str, kind: str, sni: str | None) -> None:
    context = tls_of(address)
    validation = context["common_tls_context"]["validation_context"]

    assert validation["match_typed_subject_alt_names"] == [{"san_type": kind, "matcher": {"exact": host}}]
    assert validation["trusted_ca"]["filename"]
    assert context.get("sni") == sni


def test_envoy_shows_its_own_certificate_if_it_has_one() -> None:
    files = Tls(ca_file="ca.pem", cert_file="envoy.pem", key_file="envoy.key")
    common = tls_of("tls:authz.example:1", tls=files)["common_tls_context"]

    assert common["validation_context"]["trusted_ca"] == {"filename": "ca.pem"}
    assert common["tls_certificates"] == [
        {"certificate_chain": {"filename": "envoy.pem"}, "private_key": {"filename": "envoy.key"}}
    ]


@pytest.mark.parametrize("files", [{"cert_file": "envoy.pem"}, {"key_file": "envoy.key"}])
def test_half_a_key_pair_is_refused(files: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^authz_cert_file: "):
        Tls(**files)


@pytest.mark.parametrize("other", ["127.0.0.1:1", "tls:other.example:1"])
def test_servers_of_one_cluster_share_one_certificate(other: str) -> None:
    with pytest.raises(ConfigError, match=r"^authz: "):
        authz_cluster("authz", ["tls:authz.example:1", other])


def test_workers_that_share_a_port_get_new_connections_now_and_then():
    """Those with sockets of their own need none: Envoy takes turns."""

    def options(address):
        [made] = authz_cluster("authz", [address])["typed_extension_protocol_options"].values()
        return made.get("common_http_protocol_options", {})

    assert options("127.0.0.1:9191")["max_requests_per_connection"] > 0
    assert options("unix:/run/authz.0") == {}
