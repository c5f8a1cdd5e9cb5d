"""The digest of a policy's text: by pieces, since other threads would have to wait while a large one is written."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any

_PIECE = 256
_DIGITS = 12

_encode = json.JSONEncoder(default=str).encode


def digest_of(data: Mapping[str, Any]) -> str:
    """Return what is the same for the same document, and for hardly any other.

    Args:
        data: the document: a mapping, of which any value may be long.

    """
    digest = sha256(b"{")
    for number, (key, value) in enumerate(data.items()):
        digest.update(f"{', ' if number else ''}{_encode(key)}: ".encode())
        for piece in _pieces(value):
            digest.update(piece.encode())
    digest.update(b"}")
    return digest.hexdigest()[:_DIGITS]


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        yield from _joined("[", (_encode(part)[1:-1] for part in _parts(value)), "]")
    elif isinstance(value, dict):
        yield from _joined("{", (_encode(dict(part))[1:-1] for part in _parts(value.items())), "}")
    else:
        yield _encode(value)


def _parts(items: Iterable[Any]) -> Iterator[list[Any]]:
    remaining = iter(items)
    while part := list(itertools.islice(remaining, _PIECE)):
        yield part


def _joined(begin: str, parts: Iterable[str], end: str) -> Iterator[str]:
    yield begin
    for number, part in enumerate(parts):
        yield f", {part}" if number else part
    yield end
