"""Reads a policy's text into plain data, and finds the line of each part.

The subset of YAML 1.2 that JSON can express: no anchors, aliases or tags; and ``no`` is text.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

from authz.errors import ConfigError
from authz.runtime.configuration import extra
from authz.runtime.text.pieces import Doubt, check_text, json_of, stream_of

MAX_BYTES = 64 * 2**20
MAX_DEPTH = 32
# No other thread runs while so many items are copied: some 0.1 ms.
_SLICE = 1_000

_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]{1,18}(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?", re.ASCII)

Step = str | int
"""A key of a mapping, or an index of a list."""


class Fault(Exception):  # noqa: N818 - it never leaves this package
    """Something is wrong with a document.

    Args:
        message: what is wrong.
        path: where it is: the steps that lead there.

    """

    def __init__(self, message: str, *path: Step) -> None:
        super().__init__(message)
        self.message, self.path = message, path

    def within(self, *outer: Step) -> "Fault":
        """Return the same fault with ``outer`` steps before its path."""
        self.path = (*outer, *self.path)
        return self


class Document(NamedTuple):
    """A policy as plain data.

    Args:
        data: mappings, lists, text, numbers, booleans and null.
        source: what to call it in an error.
        content: what it was read from, in UTF-8, or ``b""``.
        folder: where the files are that it names; ``None`` if it is no file.

    """

    data: Any
    source: str = "policy"
    content: bytes = b""
    folder: str | None = None

    def let_go(self) -> None:
        """Free the data piece by piece: to free a large policy at once would stop every thread for milliseconds."""
        organizations = self.data.get("organizations") if isinstance(self.data, dict) else None
        while isinstance(organizations, dict) and organizations:
            organizations.popitem()

    def taken(self, key: str) -> Iterator[Any]:
        """Yield the items of a list of the mapping that this is; one that was read loses each, and its memory."""
        items = self.data.get(key, ())
        for number in range(len(items)):
            item = items[number]
            if self.content:
                items[number] = None
            yield item

    def line(self, *path: Step) -> int | None:
        """Return the line of the part at ``path``; ``None`` if it cannot be told."""
        return _line_of(self.content, path) if self.content else None

    def error(self, fault: Fault) -> ConfigError:
        """Return the error for a fault of this document, with its line."""
        line = self.line(*fault.path)
        if line is not None:
            return ConfigError(f"{self.source}:{line}: {fault.message}")
        where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in fault.path).lstrip(".")
        return ConfigError(f"{self.source}: {f'{where}: ' if where else ''}{fault.message}")


def read(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> Document:
    """Read a file: JSON if its name ends in ``.json``, else YAML, which includes JSON.

    Args:
        path: of the file.
        max_bytes: the most that it may hold, in whole MiB.

    Raises:
        ConfigError: it cannot be read, or is neither.

    """
    source = os.fspath(path)
    content, folder = content_of(source, max_bytes), os.path.dirname(source)  # noqa: PTH120 - "" stays so in messages
    if source.endswith(".json"):
        return _JsonDocument(_json(content, source), source, content, folder)
    return Document(_yaml(content, source), source, content, folder)


def content_of(source: str, max_bytes: int) -> bytes:
    """Return what a file holds.

    Raises:
        ConfigError: it cannot be read, is too large, or is not UTF-8.

    """
    try:
        with Path(source).open("rb") as file:
            content = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{source}: cannot be read ({getattr(error, 'strerror', None) or 'no such file'})") from error
    if len(content) > max_bytes:
        raise ConfigError(f"{source}: longer than {max_bytes // 2**20} MiB")
    try:
        check_text(content)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: is not UTF-8 text") from error
    return content


def text_of(content: bytes) -> str:
    """Return ``content``, which is UTF-8, as text without a byte order mark."""
    return content.decode("utf-8-sig")


class _JsonDocument(Document):
    """A document that was read from JSON."""

    def line(self, *path: Step) -> int | None:
        """Return the line of the part at ``path``; ``None`` if it cannot be told."""
        # Valid JSON has tabs only between values, where YAML, by which lines are found, does not accept them.
        return _line_of(self.content.replace(b"\t", b" "), path)


def _json(content: bytes, source: str) -> Any:
    try:
        return json_of(content, unique)
    except (Doubt, Fault, RecursionError):
        # Read as a whole it may be right, or has the error that is to be told.
        return _whole_json(text_of(content), source)


def _whole_json(text: str, source: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{source}:{error.lineno}: not JSON: {error.msg}") from error
    except Fault as fault:
        raise ConfigError(f"{source}: {fault.message}") from fault
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"{source}: nested too deeply, or a number too long") from error


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of JSON that has ``pairs``.

    Raises:
        Fault: a key is given twice.

    """
    if len(pairs) <= _SLICE:
        found = dict(pairs)
    else:
        found = {}
        for begin in range(0, len(pairs), _SLICE):
            found.update(pairs[begin : begin + _SLICE])
    if len(found) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise Fault(f"the key {next(key for key in counts if counts[key] > 1)!a} is given twice")
    # Freed in slices as well.
    while len(pairs) > _SLICE:
        del pairs[-_SLICE:]
    return found


def _yaml(content: bytes, source: str) -> Any:
    with extra("policy", f"{source}: YAML needs the extra 'policy'", package="yaml"):
        import yaml  # noqa: PLC0415 - the extra's
    try:
        return _Builder(yaml, content).document()
    except _Misplaced as error:
        raise ConfigError(f"{source}:{error.line}: {error}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{source}:{line}: not YAML: {_problem(content, error)}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML: it has characters that text must not have") from error


def _events(yaml: Any, content: bytes) -> Callable[[], Any]:
    """Return a function that returns the next event of a parser."""
    # The loader in C is ten times as fast, and reads a stream in pieces; wheels without it are rare.
    if hasattr(yaml, "CSafeLoader"):
        return cast("Callable[[], Any]", yaml.CSafeLoader(stream_of(content)).get_event)
    return cast("Callable[[], Any]", yaml.SafeLoader(text_of(content)).get_event)


def _problem(content: bytes, error: Any) -> str:
    mark, said = error.problem_mark, str(error.problem)
    # The parser in C does not say which character, and a tab is invisible.
    if mark and said.startswith("found character that"):
        return said.replace("character", f"character {text_of(content)[mark.index : mark.index + 1]!a}", 1)
    return said


class _Misplaced(Exception):  # noqa: N818 - it never leaves this module
    def __init__(self, message: str, event: Any) -> None:
        super().__init__(message)
        self.line = event.start_mark.line + 1


class _Builder:
    """Builds plain data from the events of a parser, and nothing that the file does not spell out."""

    def __init__(self, yaml: Any, content: bytes) -> None:
        self._next = _events(yaml, content)
        self._scalar, self._alias = yaml.ScalarEvent, yaml.AliasEvent
        self._list, self._list_end = yaml.SequenceStartEvent, yaml.SequenceEndEvent
        self._mapping_end = yaml.MappingEndEvent
        self._document, self._end = yaml.DocumentStartEvent, yaml.StreamEndEvent

    def document(self) -> Any:
        self._next()
        event = self._next()
        if type(event) is self._end:
            return None
        value = self._value(self._next(), 0)
        self._next()
        event = self._next()
        if type(event) is self._document:
            raise _Misplaced("a second document; a file holds one", event)
        return value

    def _value(self, event: Any, depth: int) -> Any:
        kind = type(event)
        if kind is self._alias or event.anchor is not None:
            raise _Misplaced("anchors and aliases are not supported; write it out", event)
        if event.tag is not None:
            raise _Misplaced(f"tags such as {event.tag!a} are not supported", event)
        if kind is self._scalar:
            return _plain(event.value) if event.implicit[0] else event.value
        if depth == MAX_DEPTH:
            raise _Misplaced("nested too deeply", event)
        return self._items(depth + 1) if kind is self._list else self._entries(depth + 1)

    def _items(self, depth: int) -> list[Any]:
        items: list[Any] = []
        while type(event := self._next()) is not self._list_end:
            items.append(self._value(event, depth))
        return items

    def _entries(self, depth: int) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        while type(event := self._next()) is not self._mapping_end:
            if type(event) is not self._scalar or event.anchor is not None or event.tag is not None:
                raise _Misplaced("a key must be plain text", event)
            key = event.value
            if key in entries:
                raise _Misplaced(f"the key {key!a} is given twice", event)
            entries[key] = self._value(self._next(), depth)
        return entries


def _plain(text: str) -> Any:
    """Return the value of a scalar without quotes (YAML 1.2.2 section 10.3)."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] in "+-.0123456789" and _NUMBER.fullmatch(text):
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    return text


def _line_of(content: bytes, path: tuple[Step, ...]) -> int | None:
    """Return the line of the part at ``path``; ``None`` without the YAML library."""
    try:
        import yaml  # noqa: PLC0415 - the extra's
    except ModuleNotFoundError:
        return None
    try:
        return _Finder(yaml, content).line(path)
    except yaml.YAMLError:
        # JSON that is not YAML: the missing line is not worth a second error.
        return None


class _Finder:
    """Finds the line of a part from the events of a parser: a tree of the whole document would take long to free."""

    def __init__(self, yaml: Any, content: bytes) -> None:
        self._next = _events(yaml, content)
        self._starts = yaml.CollectionStartEvent
        self._ends = yaml.CollectionEndEvent
        self._mapping = yaml.MappingStartEvent

    def line(self, path: tuple[Step, ...]) -> int:
        self._next(), self._next()
        event = self._next()
        line = event.start_mark.line if event.start_mark is not None else 0
        for step in path:
            if isinstance(event, self._mapping):
                while (key := self._next()).value != step:
                    self._pass(self._next())
                line, event = key.start_mark.line, self._next()
            else:
                for _ in range(int(step)):
                    self._pass(self._next())
                event = self._next()
                line = event.start_mark.line
        return int(line) + 1

    def _pass(self, event: Any) -> None:
        depth = 0
        while True:
            depth += isinstance(event, self._starts) - isinstance(event, self._ends)
            if not depth:
                return
            event = self._next()
