"""Envoy's configuration: whether it asks this server about every request, and does what the answer says."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from authz.cli.doctor.envoy import cluster, requests
from authz.cli.doctor.envoy.documents import MAX_BYTES, EnvoyConfig, Node, at, entries, parse, read_file
from authz.cli.doctor.envoy.routes import is_in_force, is_off, unchecked_routes
from authz.cli.doctor.findings import Finding, Level, fault, ok, skipped
from authz.cli.doctor.reaching import in_words
from authz.cli.doctor.subject import Subject
from authz.errors import ConfigError
from authz.runtime.network import causes
from authz.runtime.network.addresses import is_host_and_port
from authz.runtime.network.transport import Transport, TransportError

_EXT_AUTHZ = ".ext_authz.v3.ExtAuthz"
_LEAST_SECONDS, _MOST_SECONDS = 0.5, 10.0
_OK = 200


class Asking(NamedTuple):
    """An ext_authz filter, and where it stands.

    Args:
        name: the filter's, by which routes refer to it.
        config: of the filter.
        manager: the connection manager.

    """

    name: str
    config: Node
    manager: Node


def check_envoy(subject: Subject) -> Iterator[Finding]:
    """Compare Envoy's configuration with the settings of this server."""
    evidence = subject.evidence
    if evidence.envoy_config is None and evidence.envoy_admin is None:
        yield skipped("neither --envoy-config nor --envoy-admin is given")
        return
    try:
        if evidence.envoy_config is not None:
            yield from _of_config(subject, read_file(evidence.envoy_config))
        if evidence.envoy_admin is not None:
            yield from _of_config(subject, _dump(evidence.envoy_admin, evidence.timeout))
    except ConfigError as error:
        yield fault("envoy-unreadable", str(error))


def _dump(address: str, timeout: float) -> EnvoyConfig:
    """Return what is in force in a running Envoy.

    Raises:
        ConfigError: it does not tell.

    """
    if not is_host_and_port(address):
        raise ConfigError(f"envoy_admin: {address!a} is not HOST:PORT, such as 127.0.0.1:9901")
    transport = Transport(timeout=timeout, max_bytes=MAX_BYTES)
    try:
        answer = transport.fetch("GET", f"http://{address}/config_dump?include_eds").result(2 * timeout)
    except TransportError as error:
        raise ConfigError(f"envoy_admin: {address}: {in_words(error.reason)}") from None
    except TimeoutError:
        raise ConfigError(f"envoy_admin: {address}: {in_words('timeout')}") from None
    finally:
        transport.close()
    if answer.status != _OK:
        raise ConfigError(f"envoy_admin: {address}: {causes.status(answer.status)}")
    return parse(answer.body, f"envoy_admin: {address}")


def _of_config(subject: Subject, config: EnvoyConfig) -> Iterator[Finding]:
    found: list[Asking] = []
    silent: list[str] = []
    for manager in config.managers:
        filters = [each for each in _filters(manager) if is_in_force(config, manager, each.name)]
        found += filters
        silent += [] if filters else [str(manager.get("stat_prefix", "a connection manager"))]
    if silent or not found:
        # One beside others may be for callers inside, such as a sidecar's for what its own program calls.
        level: Level = "warning" if found else "error"
        why = f"{requests.listed(silent) or 'no connection manager'}: no ext_authz filter in force"
        yield fault("envoy-asks-nothing", why, "the filter before the router", level=level)
    unchecked = unchecked_routes(config, {each.name: not is_off(each.manager, each.name) for each in found})
    if found and unchecked:
        yield fault("envoy-route-unchecked", f"the check is off for {requests.listed(unchecked)}", "no route")
    # Listeners often have the same faults.
    about = (_of_filter(subject, config, each, has_unchecked=bool(unchecked)) for each in found)
    faults = list(dict.fromkeys(itertools.chain.from_iterable(about)))
    yield from faults
    if found and not any(each.level == "error" for each in faults):
        yield ok(f"{len(found)} {'filter asks' if len(found) == 1 else 'filters ask'} this server")


def _filters(manager: Node) -> Iterator[Asking]:
    for each in entries(manager, "http_filters"):
        config = at(each, "typed_config")
        if str(at(config, "@type") or "").endswith(_EXT_AUTHZ):
            yield Asking(str(at(each, "name")), config, manager)


def _of_filter(subject: Subject, config: EnvoyConfig, asking: Asking, *, has_unchecked: bool) -> Iterator[Finding]:
    yield from cluster.check_server(subject.settings, config, asking.config)
    yield from _of_outcomes(asking.config)
    yield from requests.check_headers(config, asking.config, asking.manager, has_unchecked=has_unchecked)
    yield from requests.check_bodies(config, asking.config, asking.name)
    yield from requests.check_paths(asking.manager)


def _of_outcomes(config: Node) -> Iterator[Finding]:
    if config.get("failure_mode_allow"):
        found = "failure_mode_allow: true, so calls pass while this server does not answer"
        yield fault("envoy-fails-open", found, "false")
    if config.get("shadow_mode"):
        yield fault("envoy-fails-open", "shadow_mode: true, so every call passes", "no shadow_mode")
    if config.get("filter_enabled") is not None and not at(config, "deny_at_disable", "default_value"):
        found = "filter_enabled: what it leaves out passes unchecked"
        yield fault("envoy-fails-open", found, "no filter_enabled, or deny_at_disable as well")
    service = config.get("grpc_service") or at(config, "http_service", "server_uri")
    given = seconds(at(service, "timeout"))
    if given is None or not _LEAST_SECONDS <= given <= _MOST_SECONDS:
        found = "no timeout, which stands for 0.2 s" if given is None else f"timeout: {given:g}s"
        yield fault("envoy-timeout", found, f"{_LEAST_SECONDS:g} to {_MOST_SECONDS:g} s")
    if at(config, "status_on_error", "code") not in ("ServiceUnavailable", 503):
        found = "status_on_error is not ServiceUnavailable, so an outage looks like 403"
        yield fault("envoy-hides-outages", found, "ServiceUnavailable")
    if not config.get("validate_mutations"):
        yield fault("envoy-trusts-answers", "validate_mutations is off", "true")


def seconds(duration: object) -> float | None:
    """Return the seconds of a duration such as ``1s``; ``None`` if it is none."""
    if not isinstance(duration, str) or not duration.endswith("s"):
        return None
    try:
        return float(duration[:-1])
    except ValueError:
        return None
