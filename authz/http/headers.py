"""Headers of a request as a server in Python has them: what they say, and what its handler may see of them. Pure."""

import binascii
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from authz.call.metadata import TrustedMetadata, is_forged
from authz.call.principal import Principal
from authz.call.refusal import Refusal
from authz.http.forms import Form, whole_answer

Header = tuple[bytes, bytes]

# More than clients and proxies of one service use; the caller chooses the names.
_KNOWN = 1024


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


class Sorted(NamedTuple):
    """The headers of one request, looked through once.

    Attributes:
        kept: those that the handler may see.
        credentials: the values of ``authorization``.
        kinds: the values of ``content-type``.
        size: the bytes of all.

    """

    kept: list[Header]
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
        self._names: dict[bytes, str] = {}

    def sort(self, raw: Iterable[Header]) -> Sorted:
        """Return what the headers of one request say."""
        kept: list[Header] = []
        credentials: list[str] = []
        kinds: list[str] = []
        size = 0
        names = self._names
        for header in raw:
            name, value = header
            size += len(name) + len(value)
            what = names.get(name)
            if what is None:
                what = self._learn(name)
            if not what:
                kept.append(header)
            elif what == "authorization":
                credentials.append(value.decode("latin-1"))
                kept.append(header)
            elif what == "content-type":
                kinds.append(value.decode("latin-1"))
                kept.append(header)
        return Sorted(kept, credentials, kinds, size)

    def _learn(self, name: bytes) -> str:
        # Servers make names lower case; that none forgets to is not left to them.
        lower = name.decode("latin-1").lower()
        what = "forged" if is_forged(lower, self._reserved) else lower
        what = what if what in ("forged", "authorization", "content-type") else ""
        if len(self._names) < _KNOWN:
            self._names[name] = what
        return what


# As many as a verifier remembers tokens: most callers that are allowed call again.
@functools.lru_cache(10_000)
def trusted_headers(trusted: TrustedMetadata, principal: Principal) -> tuple[Header, ...]:
    """Return the headers that tell a handler who calls."""
    return tuple(
        (entry.key.encode("ascii"), text_of(entry.value).encode("ascii")) for entry in trusted.entries(principal)
    )


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
