"""Headers of a request as a server in Python has them: what they say, and what its handler may see of them. Pure."""

import binascii
import functools
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Generic, NamedTuple, TypeVar

from authz.call.known import Known
from authz.call.metadata import KNOWN_NAMES, LONGEST_KNOWN_NAME, TrustedMetadata, is_forged
from authz.call.principal import Principal
from authz.call.refusal import Refusal
from authz.http.forms import Form, whole_answer

Header = tuple[bytes, bytes]
Written = TypeVar("Written")

# As many as a verifier remembers tokens: most callers that are allowed call again.
_REMEMBERED = 10_000
_AUTHORIZATION, _CONTENT_TYPE = b"authorization", b"content-type"


class RawHeaders:
    """The headers of one request, as :class:`authz.call.call.Metadata`: decoded only when a rule reads them all.

    Bytes that are not ASCII become Latin-1 characters, which no token has.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: Sequence[Header]) -> None:
        self._raw = raw

    def __len__(self) -> int:
        return len(self._raw)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in self._raw)

    def names(self) -> Iterator[str]:
        """Return the names of all of them, copies included."""
        return (name.decode("latin-1") for name, _ in self._raw)


class Sorted(NamedTuple):
    """The headers of one request, looked through once.

    Attributes:
        kept: those that the handler may see.
        credentials: the values of ``authorization``.
        kinds: the values of ``content-type``.
        size: the bytes of all.

    """

    kept: Sequence[Header]
    credentials: list[str]
    kinds: list[str]
    size: int


class Sorting:
    """Look through the headers of requests.

    Args:
        trusted: the names under which handlers find their caller: no caller may send them.

    """

    def __init__(self, trusted: TrustedMetadata) -> None:
        self._reserved = trusted.reserved
        # Names that have been seen, and are not reserved.
        self._harmless: set[bytes] = set()

    def sort(self, raw: Sequence[Header]) -> Sorted:
        """Return what the headers of one request say."""
        size = sum(map(len, chain.from_iterable(raw)))
        by_name = dict(raw)
        if len(by_name) < len(raw) or not by_name.keys() <= self._harmless:
            return self._sort(raw, size)
        credential, kind = by_name.get(_AUTHORIZATION), by_name.get(_CONTENT_TYPE)
        return Sorted(
            raw,
            [] if credential is None else [credential.decode("latin-1")],
            [] if kind is None else [kind.decode("latin-1")],
            size,
        )

    def _sort(self, raw: Sequence[Header], size: int) -> Sorted:
        kept: list[Header] = []
        credentials: list[str] = []
        kinds: list[str] = []
        for header in raw:
            # Servers make names lower case; that none forgets to is not left to them.
            name = header[0].lower()
            if name not in self._harmless and self._is_forged(name):
                continue
            kept.append(header)
            if name == _AUTHORIZATION:
                credentials.append(header[1].decode("latin-1"))
            elif name == _CONTENT_TYPE:
                kinds.append(header[1].decode("latin-1"))
        return Sorted(kept, credentials, kinds, size)

    def _is_forged(self, name: bytes) -> bool:
        if is_forged(name.decode("latin-1"), self._reserved):
            return True
        if len(self._harmless) < KNOWN_NAMES and len(name) <= LONGEST_KNOWN_NAME:
            self._harmless.add(name)
        return False


class Telling(Generic[Written]):
    """Tell handlers who calls, in headers.

    Args:
        trusted: under which names they find it.
        write: writes a name and a value as their server would.

    """

    def __init__(self, trusted: TrustedMetadata, write: Callable[[str, str], Written]) -> None:
        self._trusted, self._write = trusted, write
        self._told = Known[Sequence[Written]](_REMEMBERED)

    def headers(self, principal: Principal) -> Sequence[Written]:
        """Return the headers that tell a handler who calls; none for ``ANONYMOUS``."""
        told = self._told.of(principal)
        if told is None:
            entries = self._trusted.entries(principal)
            told = self._told.remember(principal, [self._write(entry.key, text_of(entry.value)) for entry in entries])
        return told


def as_bytes(name: str, value: str) -> Header:
    """Return a header as ASGI has it."""
    return name.encode("ascii"), value.encode("ascii")


# There are few reasons and forms, and a caller that is refused may ask often.
@functools.lru_cache(512)
def refusal_answer(refusal: Refusal, form: Form) -> tuple[int, tuple[Header, ...], bytes]:
    """Return status, headers and body of the answer to a caller who is refused."""
    status, entries, text = whole_answer(refusal, form)
    body = text.encode()
    headers = [(entry.key.encode("ascii"), text_of(entry.value).encode("latin-1")) for entry in entries]
    return status, (*headers, (b"content-length", b"%d" % len(body))), body


def text_of(value: str | bytes) -> str:
    """Return the value of a header as it is written to the wire: gRPC expects base64 without padding."""
    return value if isinstance(value, str) else binascii.b2a_base64(value, newline=False).decode("ascii").rstrip("=")
