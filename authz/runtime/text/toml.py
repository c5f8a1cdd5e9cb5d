"""Reads TOML into plain data, and finds the line of each part, which the library does not tell."""

import re
import tomllib

from authz.errors import ConfigError
from authz.runtime.text.document import Document, Step, content_of, text_of

_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class TomlDocument(Document):
    """A document that was read from TOML."""

    def line(self, *path: Step) -> int | None:
        """Return the line of the part at ``path``; ``None`` if none or more than one looks like it."""
        lines = text_of(self.content).splitlines()
        begin, end, found = 0, next(iter(_matching(lines, r"\[")), len(lines)), None
        for step in path:
            if isinstance(step, int):
                # An element of an array of tables; of other arrays the line of the key is as near as one gets.
                begins = [begin, *_matching(lines, rf"\[\[\s*{_key(str(path[0]))}\s*\]\]")][1:]
                if step < len(begins):
                    begin, end = begins[step], [*begins, len(lines)][step + 1]
                    found = begin
                continue
            at = [number for number in _matching(lines, rf"{_key(step)}\s*[=.]") if begin <= number < end]
            at += _matching(lines, rf"\[\s*{_key(step)}\s*[\].]") if step == path[0] else []
            found = at[0] if len(at) == 1 else found
        return None if found is None else found + 1


def read_toml(path: str, *, max_bytes: int) -> TomlDocument:
    """Read a file of TOML 1.0.

    Args:
        path: of the file.
        max_bytes: the most that it may hold, in whole MiB.

    Raises:
        ConfigError: it cannot be read, or is not TOML.

    """
    content = content_of(path, max_bytes)
    text = text_of(content)
    try:
        return TomlDocument(tomllib.loads(text), path, content)
    except tomllib.TOMLDecodeError as error:
        at = _LINE.search(str(error))
        line = (at and at.group(1)) or text.count("\n") + 1
        raise ConfigError(f"{path}:{line}: not TOML: {_LINE.sub('', str(error))}") from error
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: nested too deeply, or a number too long") from error


def _matching(lines: list[str], pattern: str) -> list[int]:
    return [number for number, line in enumerate(lines) if re.match(rf"\s*{pattern}", line)]


def _key(name: str) -> str:
    return rf"[\"']?{re.escape(name)}[\"']?"
