"""The methods that different spellings of a path may reach on a lenient server.

Pure. Envoy normalizes a path only if it is configured to, and gRPC compares it byte by byte; a server that speaks
Connect or JSON beside gRPC may decode it once more, fold slashes and cases, or have methods below a prefix.
"""

import itertools
import re
from urllib.parse import unquote

MAX_PATH = 4096
"""How many characters a path may have to be looked at."""

# One more round than Envoy and a server behind it would decode together.
_ROUNDS = 3
_QUERY, _SEPARATORS = re.compile(r"[?#]"), re.compile(r"[/\\]+")
# They begin the parameters of a segment (RFC 3986 section 3.3), or a query that was encoded.
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
