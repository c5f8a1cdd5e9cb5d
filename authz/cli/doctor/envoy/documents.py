"""Envoy's configuration as others have written it: a bootstrap, a part of one, or what a running Envoy has in force."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from authz.errors import ConfigError
from authz.runtime.configuration import extra

Node = Mapping[str, Any]

MAX_BYTES = 64 << 20
_MOST_NODES = 1_000_000
_MOST_DEEP = 200
_MANAGER = ".http_connection_manager.v3.HttpConnectionManager"
# What was in force, or never came to be.
_NOT_IN_FORCE = frozenset({"draining_state", "warming_state", "error_state", "dynamic_warming_clusters"})
_CAMEL = re.compile(r"[a-z][a-z0-9]*(?:[A-Z][a-z0-9]*)+")


@dataclass(frozen=True, slots=True)
class EnvoyConfig:
    """The parts of Envoy's configuration that matter here, with the names of fields as Envoy's documentation has them.

    Args:
        managers: the HTTP connection managers.
        clusters: by name.
        routes: the route configurations, of managers and of their own.

    """

    managers: list[Node] = field(default_factory=list)
    clusters: dict[str, Node] = field(default_factory=dict)
    routes: list[Node] = field(default_factory=list)


def read_file(path: Path) -> EnvoyConfig:
    """Read a file in YAML or JSON.

    Raises:
        ConfigError: it cannot be read, or is no configuration of Envoy.

    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"envoy_config: {str(path)!a} cannot be read ({error.strerror or 'no such file'})") from None
    return parse(content, f"envoy_config: {str(path)!a}")


def parse(content: bytes, source: str) -> EnvoyConfig:
    """Return the parts of a document.

    Args:
        content: in YAML or JSON.
        source: what to call it in an error.

    Raises:
        ConfigError: it is neither, is too large, or has nothing of Envoy's.

    """
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{source}: larger than {MAX_BYTES >> 20} MiB")
    documents = _documents(content, source)
    if any(isinstance(each, dict) and "apiVersion" in each and "kind" in each for each in documents):
        raise ConfigError(f"{source}: manifests of Kubernetes, and not Envoy's own configuration")
    found, seen = EnvoyConfig(), set[str]()
    for key, node in _nodes("", _Plain(source).of(documents)):
        _sort_in(found, seen, key, node)
    if not found.managers and not found.clusters:
        raise ConfigError(f"{source}: has neither HTTP connection managers nor clusters")
    return found


def _documents(content: bytes, source: str) -> list[Any]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{source}: is not UTF-8 text") from None
    if text.lstrip().startswith("{"):
        try:
            return [json.loads(text)]
        except (ValueError, RecursionError):
            # It may be YAML in its flow style.
            pass
    with extra("server", "envoy_config: this needs the extra 'server'", package="yaml"):
        import yaml  # noqa: PLC0415 - the extra's
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_depth(yaml, loader, text, source)
        return list(yaml.load_all(text, loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{source}{where}: neither YAML nor JSON") from None
    except ConfigError:
        raise
    except (RecursionError, ValueError):
        raise ConfigError(f"{source}: nested too deeply, or with values that YAML cannot have") from None


def _check_depth(yaml: Any, loader: Any, text: str, source: str) -> None:
    # The loader in C calls itself for each level, and without a bound it would end this process.
    depth = 0
    for event in yaml.parse(text, loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MOST_DEEP:
            raise ConfigError(f"{source}, line {event.start_mark.line + 1}: nested too deeply")


def _sort_in(found: EnvoyConfig, seen: set[str], key: str, node: Node) -> None:
    is_manager = key == "http_connection_manager" or str(node.get("@type", "")).endswith(_MANAGER)
    # A dump has static parts twice: in the bootstrap, and among what is in force.
    if is_manager and _is_new(node, seen):
        found.managers.append(node)
    if key in ("clusters", "cluster") and isinstance(node.get("name"), str):
        found.clusters.setdefault(node["name"], node)
    if "virtual_hosts" in node and _is_new(node, seen):
        found.routes.append(node)


def _is_new(node: Node, seen: set[str]) -> bool:
    text = json.dumps(node, default=str, sort_keys=True)
    is_new = text not in seen
    seen.add(text)
    return is_new


class _Plain:
    """Makes a tree of plain data with the names of fields as Envoy's documentation has them, within bounds.

    Args:
        source: what to call the document in an error.

    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._left = _MOST_NODES

    def of(self, value: Any, depth: int = 0) -> Any:
        """Return ``value`` so.

        Raises:
            ConfigError: it is too large. Anchors of YAML can make a small file a large tree, even one without an end.

        """
        self._left -= 1
        if self._left < 0 or depth > _MOST_DEEP:
            raise ConfigError(f"{self._source}: nested too deeply, or too large")
        if isinstance(value, dict):
            return {_field(str(name)): self.of(each, depth + 1) for name, each in value.items()}
        if isinstance(value, list):
            return [self.of(each, depth + 1) for each in value]
        return value


def _field(name: str) -> str:
    # Envoy takes failureModeAllow for failure_mode_allow, as protobuf's JSON has it.
    return re.sub("[A-Z]", lambda found: "_" + found[0].lower(), name) if _CAMEL.fullmatch(name) else name


def _nodes(key: str, value: Any) -> Iterator[tuple[str, Node]]:
    """Yield every mapping, with the key that it stands under, from the outside to the inside."""
    if isinstance(value, dict):
        yield key, value
        for name, each in value.items():
            if name not in _NOT_IN_FORCE:
                yield from _nodes(name, each)
    elif isinstance(value, list):
        for each in value:
            yield from _nodes(key, each)


def entries(node: Any, *path: str) -> list[dict[str, Any]]:
    """Return the mappings in the list at a path of keys; none if there is no list."""
    found = at(node, *path)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def mapping(node: Any, *path: str) -> dict[str, Any]:
    """Return the mapping at a path of keys; an empty one if there is none."""
    found = at(node, *path)
    return found if isinstance(found, dict) else {}


def at(node: Any, *path: str) -> Any:
    """Return what stands at a path of keys; ``None`` if there is nothing."""
    for name in path:
        node = node.get(name) if isinstance(node, dict) else None
    return node
