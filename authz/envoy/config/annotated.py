"""YAML with comments: plain data, and comments on its parts."""

import fnmatch
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING or not yaml.__with_libyaml__:
    from yaml import SafeDumper, SafeLoader
else:
    # They take a tenth of the time.
    from yaml import CSafeDumper as SafeDumper
    from yaml import CSafeLoader as SafeLoader

_WIDTH = 110


@dataclass(frozen=True, kw_only=True)
class Document:
    """One YAML document.

    Args:
        data: its content.
        title: lines to put above it.
        comments: comments by a pattern of the part's path: keys and names, joined by ``/``. An element of a list has
            its ``name`` there, or its index. ``*`` matches anything. Each comment is written once, at the first match.

    """

    data: Any
    title: str = ""
    comments: Mapping[str, str] = field(default_factory=dict)


def render(documents: Iterable[Document]) -> str:
    """Return ``documents`` as one YAML stream."""
    return "---\n".join(map(_render, documents))


def _render(document: Document) -> str:
    text = yaml.dump(document.data, Dumper=_Dumper, sort_keys=False, width=1000)
    lines = text.split("\n")
    remaining: dict[str, list[str]] = {}
    for pattern in document.comments:
        remaining.setdefault(_end(pattern), []).append(pattern)
    said: dict[int, set[str]] = {}
    for path, number in _parts("", yaml.compose(text, Loader=SafeLoader)):
        for patterns in (remaining.get(_end(path), []), remaining.get("", [])):
            for pattern in [pattern for pattern in patterns if fnmatch.fnmatchcase(path, pattern)]:
                patterns.remove(pattern)
                said.setdefault(number, set()).add(pattern)
    for number, found in said.items():
        indent = lines[number][: len(lines[number]) - len(lines[number].lstrip(" "))]
        comments = (_comment(comment, indent) for pattern, comment in document.comments.items() if pattern in found)
        lines[number] = "".join(comments) + lines[number]
    return _comment(document.title, "") + "\n".join(lines)


def _end(path: str) -> str:
    """Return the last part of a path or pattern, which both have if they match; empty if it has wildcards."""
    end = path.rpartition("/")[2]
    return "" if any(sign in end for sign in "*?[") else end


def _comment(text: str, indent: str) -> str:
    prefix = f"{indent}# "
    wrapped = (
        # Not at hyphens, because some comments contain commands.
        textwrap.wrap(line, _WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_on_hyphens=False)
        for line in text.split("\n")
    )
    return "".join(f"{line}\n" for lines in wrapped for line in lines)


def _parts(path: str, node: Any) -> Iterator[tuple[str, int]]:
    """Yield the path of every part, and the line on which it begins."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _part(f"{path}/{key.value}", key.start_mark.line, value)
    elif isinstance(node, yaml.SequenceNode):
        for index, element in enumerate(node.value):
            yield from _part(f"{path}/{_name(element) or index}", element.start_mark.line, element)


def _part(path: str, line: int, node: Any) -> Iterator[tuple[str, int]]:
    yield path, line
    yield from _parts(path, node)


def _name(node: Any) -> str:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((str(value.value) for key, value in pairs if key.value == "name"), "")


class _Dumper(SafeDumper):
    """Writes text of several lines as blocks, and no anchors, so that people can read it."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _represent_text(dumper: SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)
