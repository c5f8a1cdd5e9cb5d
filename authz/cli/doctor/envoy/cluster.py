"""Where an ext_authz filter asks: whether its cluster leads to the addresses where this server listens."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from authz.cli.doctor.envoy.documents import EnvoyConfig, Node, at, entries, mapping
from authz.cli.doctor.findings import Finding, fault
from authz.cli.doctor.listening import addresses_of
from authz.runtime.network.urls import is_loopback
from authz.settings.settings import Settings

_TLS = "tls:"
_ANY_HOST = frozenset({"0.0.0.0", "::"})  # noqa: S104 - what is compared
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_UPSTREAM_HEADERS = ("authorization_response", "allowed_upstream_headers")


def check_server(settings: Settings, config: EnvoyConfig, asking: Node) -> Iterator[Finding]:
    """Compare the server that a filter asks with this one.

    Args:
        settings: of this server.
        config: the whole configuration.
        asking: the configuration of the filter.

    """
    over_http = asking.get("http_service")
    if over_http is None:
        target = at(asking, "grpc_service", "google_grpc", "target_uri")
        if target is not None:
            yield from _of_addresses([str(target)], addresses_of(settings), "google_grpc")
            return
        name, listening = at(asking, "grpc_service", "envoy_grpc", "cluster_name"), addresses_of(settings)
    elif settings.forward_auth is None:
        yield fault("envoy-http-service", "http_service", "grpc_service, because forward_auth is not set")
        return
    else:
        name, listening = at(over_http, "server_uri", "cluster"), [settings.forward_auth]
    cluster = config.clusters.get(str(name))
    if cluster is None:
        found = f"the cluster {str(name)!a} is not there; there are {', '.join(sorted(config.clusters)) or 'none'}"
        yield fault("envoy-asks-elsewhere", found, f"a cluster with the endpoint {' or '.join(listening)}")
        return
    yield from _of_cluster(settings, cluster, listening, is_grpc=over_http is None)


def _of_cluster(settings: Settings, cluster: Node, listening: Sequence[str], *, is_grpc: bool) -> Iterator[Finding]:
    name, addresses = cluster["name"], list(_addresses(cluster))
    if addresses:
        yield from _of_addresses(addresses, listening, f"the cluster {name!a}")
    elif cluster.get("type") != "EDS":
        yield fault("envoy-asks-elsewhere", f"the cluster {name!a} has no endpoint", " or ".join(listening))
    meant = [each for each in listening if not addresses or any(_is_same(each, other) for other in addresses)]
    if not meant:
        return
    by_tls = cluster.get("transport_socket") is not None
    if by_tls is not any(each.startswith(_TLS) for each in meant):
        with_tls, without = f"the cluster {name!a}", " or ".join(meant)
        found = f"{with_tls} uses TLS, {without} does not" if by_tls else f"{without} uses TLS, {with_tls} does not"
        yield fault("envoy-tls", found, "both, or neither")
    elif by_tls and settings.tls_client_ca_file is not None and not _shows_certificate(cluster):
        yield fault("envoy-tls", f"the cluster {name!a} has no tls_certificates", "one, as tls_client_ca_file is set")
    if is_grpc and not _speaks_http2(cluster):
        yield fault("envoy-not-http2", f"the cluster {name!a} speaks HTTP/1.1", "http2_protocol_options")


def _of_addresses(found: Sequence[str], listening: Sequence[str], where: str) -> Iterator[Finding]:
    if not any(_is_same(ours, theirs) for ours in listening for theirs in found):
        yield fault("envoy-asks-elsewhere", f"{where} leads to {', '.join(found)}", " or ".join(listening))


def _addresses(cluster: Node) -> Iterator[str]:
    for locality in entries(cluster, "load_assignment", "endpoints"):
        for each in entries(locality, "lb_endpoints"):
            address = at(each, "endpoint", "address")
            path, host = at(address, "pipe", "path"), at(address, "socket_address", "address")
            if path is not None:
                yield f"unix:{path}"
            elif host is not None:
                yield f"{host}:{at(address, 'socket_address', 'port_value')}"


def _is_same(ours: str, theirs: str) -> bool:
    if ours.startswith("unix:") or theirs.startswith("unix:"):
        return _absolute(ours) == _absolute(theirs)
    host, _, port = ours.removeprefix(_TLS).rpartition(":")
    other, _, other_port = theirs.rpartition(":")
    if port != other_port:
        return False
    host, other = host.strip("[]").lower(), other.removeprefix("dns:").lstrip("/").strip("[]").lower()
    # A name may lead to any of our addresses, but not to one that only this machine has.
    return host == other or host in _ANY_HOST or (is_loopback(host) and is_loopback(other))


def _absolute(address: str) -> Path:
    return Path(address.removeprefix("unix:")).absolute()


def _shows_certificate(cluster: Node) -> bool:
    common = mapping(cluster, "transport_socket", "typed_config", "common_tls_context")
    return any(name.startswith("tls_certificate") for name in common)


def _speaks_http2(cluster: Node) -> bool:
    options = mapping(cluster, "typed_extension_protocol_options", _HTTP_OPTIONS)
    explicit = mapping(options, "explicit_http_config")
    chosen = {*cluster, *explicit, *options}
    return not chosen.isdisjoint(("http2_protocol_options", "auto_config", "use_downstream_protocol_config"))


def passes_to_upstream(asking: Node, names: Sequence[str]) -> list[str]:
    """Return those of ``names`` that an answer over HTTP does not hand on to the backend."""
    patterns = entries(asking, "http_service", *_UPSTREAM_HEADERS, "patterns")
    return [name for name in names if not any(matches(each, name) for each in patterns)]


def matches(pattern: Node, name: str) -> bool:
    """Say whether a StringMatcher of Envoy matches; a regular expression counts as if it did."""
    if "safe_regex" in pattern:
        return True
    if str(pattern.get("exact", "\0")).lower() == name:
        return True
    tests = {"prefix": name.startswith, "suffix": name.endswith, "contains": name.__contains__}
    return any(kind in pattern and test(str(pattern[kind]).lower()) for kind, test in tests.items())
