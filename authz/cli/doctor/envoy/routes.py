"""On which routes a filter is in force: one may be off for a route, or on for some routes only."""

from collections.abc import Iterator, Mapping

from authz.cli.doctor.envoy.documents import EnvoyConfig, Node, at, entries, mapping


def is_in_force(config: EnvoyConfig, manager: Node, name: str) -> bool:
    """Say whether the filter of that name is in force in a connection manager, at least on some route.

    Args:
        config: the whole configuration.
        manager: the connection manager.
        name: the filter's.

    """
    return not is_off(manager, name) or any(
        _says(node, name) is True for routes in config.routes for _, nodes in _routes(routes) for node in nodes
    )


def is_off(manager: Node, name: str) -> bool:
    """Say whether a connection manager has the filter of that name off, where no route has it on."""
    return any(at(each, "name") == name and at(each, "disabled") for each in entries(manager, "http_filters"))


def unchecked_routes(config: EnvoyConfig, filters: Mapping[str, bool]) -> list[str]:
    """Return in words the routes that lead to a backend while every filter is off.

    Args:
        config: the whole configuration.
        filters: by their names, whether they are on where no route says otherwise.

    """
    found = []
    for routes in config.routes:
        for words, nodes in _routes(routes):
            said = ([says for node in nodes if (says := _says(node, name)) is not None] for name in filters)
            if not any(each[0] if each else usually for each, usually in zip(said, filters.values(), strict=True)):
                found.append(words)
    return found


def _routes(routes: Node) -> Iterator[tuple[str, tuple[Node, ...]]]:
    """Yield each route to a backend in words, and what may speak of filters there, beginning with what counts most."""
    for host in entries(routes, "virtual_hosts"):
        for route in entries(host, "routes"):
            # One that answers by itself, or redirects, leads to no backend.
            if at(route, "route") is not None:
                yield f"{_match(route)} of {at(host, 'name')}", (route, host, routes)


def _says(node: Node, name: str) -> bool | None:
    """Return whether a route, or what it belongs to, has a filter on; ``None`` if it does not say."""
    config = at(node, "typed_per_filter_config", name)
    if not isinstance(config, dict):
        return None
    # FilterConfig disables a filter, or wraps its own configuration.
    return not (config.get("disabled") or at(config, "config", "disabled"))


def _match(route: Node) -> str:
    match = mapping(route, "match")
    kinds = ("path", "prefix", "path_separated_prefix")
    return next((f"the {kind} {match[kind]}" for kind in kinds if kind in match), "a route")
