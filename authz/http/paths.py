"""The one spelling of a path that rules compare, and the methods that other spellings may reach on a lenient server.

Pure. Envoy normalizes a path only if it is configured to, and gRPC compares it byte by byte; a server that speaks
Connect or JSON beside gRPC may decode it once more, fold slashes and cases, or have methods below a prefix.
"""

import itertools
import re
from collections.abc import Collection
from urllib.parse import quote, unquote

from authz.call.call import MAX_METHOD, malformed
from authz.errors import ConfigError, PermissionDeniedError

MAX_PATH = 4096
"""How many characters a path may have to be looked at."""

# One more round than Envoy and a server behind it would decode together.
_ROUNDS = 3
_QUERY, _SEPARATORS = re.compile(r"[?#]"), re.compile(r"[/\\]+")
# They begin the parameters of a segment (RFC 3986 section 3.3), or a query that was encoded.
_PARAMETERS = re.compile(r"[;?#].*", re.DOTALL)
_IGNORED = " \t\r\n\0"

# RFC 3986 section 3.3: what may stand in a segment as it is.
_KEPT = "!$&'()*+,;=:@-._~"
_CANONICAL = re.compile(rf"(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9{re.escape(_KEPT)}]+)*/?")
_AMBIGUOUS = re.compile(r"[\\\x00-\x1f\x7f]|//|/\.\.?(?:/|\Z)|\A(?!/)")


def path_of(decoded: str) -> str:
    """Return the one spelling of a path that rules compare: as Envoy has it once it has normalized a path.

    Args:
        decoded: the path as frameworks route it: percent-decoded once, without its query.

    Raises:
        PermissionDeniedError: its segments may be read in several ways (an empty one, ``.``, ``..``, a backslash or a
            control character), or it is too long; the reason is ``request_malformed``.

    """
    if len(decoded) > MAX_METHOD:
        raise malformed()
    if decoded and _CANONICAL.fullmatch(decoded):
        return decoded
    if _AMBIGUOUS.search(decoded):
        raise malformed()
    try:
        return quote(decoded, safe=f"/{_KEPT}")
    except UnicodeEncodeError:
        # A lone surrogate stands for bytes that are not UTF-8.
        raise malformed() from None


def check_paths(paths: Collection[str], setting: str) -> frozenset[str]:
    """Return ``paths`` if each is a path in the spelling that rules compare.

    Args:
        paths: such as ``/healthz``; they are compared exactly.
        setting: what to call them in an error.

    Raises:
        ConfigError: one is not.

    """
    names = (paths,) if isinstance(paths, str) else paths
    for name in names:
        try:
            spelled = path_of(unquote(name, errors="surrogateescape"))
        except PermissionDeniedError:
            raise ConfigError(f"{setting}: {name!a} is not a path such as /healthz") from None
        if spelled != name:
            raise ConfigError(f"{setting}: write {spelled!a} for {name!a}; paths are compared exactly")
    return frozenset(names)


def with_query(path: str, query: str) -> str:
    """Return a path with its query, in which a message may stand as well."""
    return f"{path}?{query}" if query else path


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
