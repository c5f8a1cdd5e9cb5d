"""The methods that a path may reach: a lenient server may accept several spellings of one.

Pure. Envoy makes a path canonical if configured to, and gRPC compares it byte by byte; a server of Connect or JSON
beside gRPC may decode it once more, merge slashes, ignore case, or serve methods below a prefix.
"""

import itertools
import re
from urllib.parse import unquote

MAX_PATH = 4096
"""How many characters of a path are read."""

# One more than the times that Envoy and a server behind it would decode a path.
_ROUNDS = 3
_QUERY, _SEPARATORS = re.compile(r"[?#]"), re.compile(r"[/\\]+")
# They begin a segment's parameters (RFC 3986 section 3.3), or an encoded query or fragment.
_PARAMETERS = re.compile(r"[;?#].*", re.DOTALL)
_IGNORED = " \t\r\n\0"


def methods_in(path: str) -> set[str]:
    """Return the methods, ``service/method``, that the most lenient server may read in a path."""
    path = _QUERY.split(path, maxsplit=1)[0]
    for _ in range(_ROUNDS):
        if "%" not in path:
            break
        path = unquote(path)
    segments: list[str] = []
    for segment in _SEPARATORS.split(path):
        name = _PARAMETERS.sub("", segment).strip(_IGNORED).casefold()
        if name == "..":
            del segments[-1:]
        elif name not in ("", "."):
            segments.append(name)
    return {f"{service}/{method}" for service, method in itertools.pairwise(segments)}
