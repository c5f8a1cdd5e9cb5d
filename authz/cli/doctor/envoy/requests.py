"""What Envoy does with requests around the check: headers, bodies and paths."""

from collections.abc import Iterator, Sequence
from typing import Any

from authz.call.metadata import TrustedMetadata
from authz.cli.doctor.envoy.cluster import matches, passes_to_upstream
from authz.cli.doctor.envoy.documents import EnvoyConfig, Node, at, entries, mapping
from authz.cli.doctor.findings import Finding, Level, fault

_HEADER_MUTATION = ".header_mutation.v3.HeaderMutation"
_TOKEN = "authorization"  # noqa: S105 - the header's name
_MOST_TOLD = 5


def check_headers(config: EnvoyConfig, asking: Node, manager: Node, *, has_unchecked: bool) -> Iterator[Finding]:
    """See whether trusted headers are removed from requests, and reach the backend when they are ours.

    Args:
        config: the whole configuration.
        asking: the configuration of the filter.
        manager: the connection manager that it stands in.
        has_unchecked: whether requests reach a backend without the check.

    """
    trusted = TrustedMetadata()
    allowed, disallowed = at(asking, "allowed_headers"), entries(asking, "disallowed_headers", "patterns")
    # Over HTTP the header is sent whatever is allowed.
    is_withheld = allowed is not None and "http_service" not in asking and not _is_among(allowed, _TOKEN)
    if is_withheld or any(matches(each, _TOKEN) for each in disallowed if "safe_regex" not in each):
        which = "allowed_headers" if is_withheld else "disallowed_headers"
        yield fault("envoy-token-withheld", f"{which} keeps authorization back", "authorization is sent")
    # The names themselves before their other spellings.
    kept = sorted(set(trusted.forgeable) - _removed_early(manager), key=lambda name: (len(name), name))
    if kept:
        found = f"not removed before routing: {listed(kept)}"
        level: Level | None = "error" if has_unchecked or asking.get("failure_mode_allow") else None
        yield fault("envoy-names-kept", found, "every spelling of the trusted names is removed", level=level)
    lost = sorted({name for name in _removed_late(config) if name in trusted.names})
    if lost:
        yield fault("envoy-names-lost", f"removed after the check: {listed(lost)}", "they reach the backend")
    if "http_service" in asking:
        not_passed = passes_to_upstream(asking, trusted.names)
        if not_passed:
            found = f"allowed_upstream_headers lacks {listed(not_passed)}"
            yield fault("envoy-names-lost", found, "all trusted names")
    rules = asking.get("decoder_header_mutation_rules")
    if rules is not None and (at(rules, "disallow_all") or at(rules, "disallow_expression")):
        found = "decoder_header_mutation_rules forbids some headers"
        yield fault("envoy-names-lost", found, "none of the trusted names is forbidden", level="warning")


def _is_among(matcher: Any, name: str) -> bool:
    return any(matches(each, name) for each in entries(matcher, "patterns"))


def _removed_early(manager: Node) -> set[str]:
    mutations: list[Any] = []
    for each in entries(manager, "early_header_mutation_extensions"):
        mutations += entries(each, "typed_config", "mutations")
    for each in entries(manager, "http_filters"):
        kind = str(at(each, "typed_config", "@type") or "")
        if kind.endswith(".ext_authz.v3.ExtAuthz"):
            break
        if kind.endswith(_HEADER_MUTATION):
            mutations += entries(each, "typed_config", "mutations", "request_mutations")
    removed = {str(at(each, "remove")).lower() for each in mutations if at(each, "remove")}
    patterns = [mapping(each, "remove_on_match", "key_matcher") for each in mutations]
    # An expression counts as if it matched: whether it does, Envoy decides.
    return removed | {name for name in TrustedMetadata().forgeable if any(matches(each, name) for each in patterns)}


def _removed_late(config: EnvoyConfig) -> Iterator[str]:
    for routes in config.routes:
        hosts = entries(routes, "virtual_hosts")
        for node in (routes, *hosts, *(route for host in hosts for route in entries(host, "routes"))):
            names = at(node, "request_headers_to_remove")
            yield from (str(name).lower() for name in (names if isinstance(names, list) else ()))


def check_bodies(config: EnvoyConfig, asking: Node, name: str) -> Iterator[Finding]:
    """See whether requests are held back whose bodies are to be shown.

    Args:
        config: the whole configuration.
        asking: the configuration of the filter.
        name: the filter's.

    """
    if asking.get("with_request_body") is None:
        return
    nodes = [host for routes in config.routes for host in entries(routes, "virtual_hosts")]
    nodes += [route for host in nodes for route in entries(host, "routes")]
    per_route = [at(each, "typed_per_filter_config", name, "check_settings") for each in nodes]
    if not any(at(each, "disable_request_body_buffering") for each in per_route):
        yield fault("envoy-holds-streams", "with_request_body on every route", "only on routes of unary methods")


def check_paths(manager: Node) -> Iterator[Finding]:
    """See whether each path has one spelling.

    Args:
        manager: the connection manager.

    """
    missing = [name for name in ("normalize_path", "merge_slashes") if not manager.get(name)]
    action = manager.get("path_with_escaped_slashes_action")
    if action not in ("REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"):
        missing.append("path_with_escaped_slashes_action")
    if missing:
        yield fault("envoy-paths", f"not set: {', '.join(missing)}", "one spelling for each path")


def listed(names: Sequence[str]) -> str:
    """Return the first few of ``names``, and how many there are besides."""
    more = f" and {len(names) - _MOST_TOLD} more" if len(names) > _MOST_TOLD else ""
    return ", ".join(names[:_MOST_TOLD]) + more
