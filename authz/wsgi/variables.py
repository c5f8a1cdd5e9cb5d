"""The headers of a request as WSGI hands them on: as variables of an environment, whose names have lost their hyphens.

Pure. Servers write ``X-Org-Id`` as ``HTTP_X_ORG_ID``, and join the values of several headers of one name by commas.
"""

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple
from wsgiref.types import WSGIEnvironment

from authz.call.metadata import KNOWN_NAMES, LONGEST_KNOWN_NAME, TrustedMetadata, is_forged

Variable = tuple[str, str]

# The two without the prefix of all others (RFC 3875 section 4.1).
_WITHOUT_PREFIX = ("CONTENT_TYPE", "CONTENT_LENGTH")
# The second one if a server lets underscores pass in names of headers.
_KINDS = ("CONTENT_TYPE", "HTTP_CONTENT_TYPE")


class Variables:
    """Those of one request, as :class:`authz.call.call.Metadata`: named as headers only when a rule reads them all."""

    __slots__ = ("_all",)

    def __init__(self, variables: list[Variable]) -> None:
        self._all = variables

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((_header_of(name), value) for name, value in self._all)

    def names(self) -> Iterator[str]:
        """Return the names of all of them."""
        return (_header_of(name) for name, _ in self._all)


class Sorted(NamedTuple):
    """The variables of one request, looked through once.

    Attributes:
        headers: all that are headers.
        forged: the names of those that its caller may not send.
        credentials: the values of ``authorization``.
        kinds: the values of ``content-type``.
        size: the bytes of all.

    """

    headers: Variables
    forged: list[str]
    credentials: list[str]
    kinds: list[str]
    size: int


class Sorting:
    """Look through the variables of requests.

    Args:
        trusted: the names under which handlers find their caller: no caller may send them.

    """

    def __init__(self, trusted: TrustedMetadata) -> None:
        self._reserved = trusted.reserved
        # Names that have been seen, and are not reserved; and those of them that are headers.
        self._known: set[str] = set()
        self._headers: set[str] = set()

    def sort(self, environ: WSGIEnvironment) -> Sorted:
        """Return what the headers of one request say."""
        # In this order: another thread may learn a name meanwhile, and it learns first that it is a header.
        unknown = environ.keys() - self._known
        names = environ.keys() & self._headers
        forged = []
        for name in unknown:
            is_header = name.startswith("HTTP_") or name in _WITHOUT_PREFIX
            if is_header:
                names.add(name)
            if is_header and is_forged(_header_of(name), self._reserved):
                forged.append(name)
            else:
                self._learn(name, is_header=is_header)
        # Copied: the environment is changed before the application gets it. Some servers have the two without values.
        headers = [(name, value) for name in names if (value := environ[name]) or name not in _WITHOUT_PREFIX]
        credential = environ.get("HTTP_AUTHORIZATION")
        kinds = [environ[name] for name in _KINDS if environ.get(name)]
        size = sum(map(len, chain.from_iterable(headers)))
        return Sorted(Variables(headers), forged, [] if credential is None else [credential], kinds, size)

    def _learn(self, name: str, *, is_header: bool) -> None:
        if len(self._known) < KNOWN_NAMES and len(name) <= LONGEST_KNOWN_NAME:
            if is_header:
                self._headers.add(name)
            self._known.add(name)


def as_variable(name: str, value: str) -> Variable:
    """Return a header as WSGI has it."""
    return f"HTTP_{name.upper().replace('-', '_')}", value


def _header_of(name: str) -> str:
    return name.removeprefix("HTTP_").lower().replace("_", "-")
