"""A call before its handler runs."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol

from authz.call.peer import Peer
from authz.call.requirements import Requirements
from authz.errors import ConfigError, PermissionDeniedError

# No comma: a list of names is not one name.
_METHOD = re.compile(r"/[^\s?#,]+")

MAX_METHOD = 8192
"""The longest path that is checked, in characters: more than every server must accept (RFC 9110 section 4.1)."""

MAX_ENTRIES = 512
"""The most entries of metadata: five times what Envoy lets through by default; 16 KiB of HTTP/2 hold no more."""

MAX_METADATA_BYTES = 256 * 1024
"""Of all entries together: four times what Envoy lets through by default, sixteen times what gRPC does."""


class Metadata(Protocol):
    """Entries that can be counted without looking at them."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __iter__(self) -> Iterator[tuple[str, str | bytes]]:
        """Yield each as a name and a value, in order."""


class Entry(NamedTuple):
    """One metadata entry; grpc's own have the same shape.

    ``value`` is ``bytes`` for keys that end in ``-bin``, else ``str``.
    """

    key: str
    value: str | bytes


class Call(NamedTuple):
    """An RPC or a plain HTTP request, before it is judged.

    Args:
        method: the full method name, ``/package.Service/Method``, or an HTTP path without its query.
        metadata: every entry that the caller sent, in order, duplicates included.
        peer: the other end of the connection, or ``None`` where the door cannot tell, or not yet.
        credentials: the values of every ``authorization`` of ``metadata``, if the door has looked them up already.
        requirements: what the door requires in addition; with any, no method is public.
        verified_claims: the payload of a token whose signature a trusted proxy has checked; it counts only if the
            caller has sent no ``authorization``.
        size: at most how many bytes ``metadata`` has, if the door knows it already.
        verb: the HTTP method as it was sent, such as ``GET`` (RFC 9110 section 9.1); that of gRPC is always ``POST``.

    """

    method: str
    metadata: Metadata
    peer: Peer | None = None
    credentials: Sequence[str | bytes] | None = None
    requirements: Requirements | None = None
    verified_claims: Mapping[str, Any] | None = None
    size: int | None = None
    verb: str = "POST"


UNREADABLE = Call(method="", metadata=(), verb="")
"""Stands for a request that cannot be read."""


def check_size(call: Call) -> None:
    """Check that ``call`` is small enough for every rule to read all of it.

    Raises:
        PermissionDeniedError: its path is too long, or its metadata has too many entries or bytes.

    """
    if len(call.method) > MAX_METHOD or len(call.metadata) > MAX_ENTRIES:
        raise malformed()
    size = sum(map(len, chain.from_iterable(call.metadata))) if call.size is None else call.size
    if size > MAX_METADATA_BYTES:
        raise malformed()


def malformed() -> PermissionDeniedError:
    """Return the refusal of a request that servers may read in different ways, or that is too large to be checked."""
    return PermissionDeniedError("not a request that can be authorized", reason="request_malformed")


def check_methods(names: Collection[str], setting: str) -> frozenset[str]:
    """Return ``names`` if every one is a full method name.

    Args:
        names: such as ``/grpc.health.v1.Health/Check``; they are compared exactly.
        setting: what to call it in an error.

    Raises:
        ConfigError: one is not.

    """
    for name in (names,) if isinstance(names, str) else names:
        if not _METHOD.fullmatch(name):
            raise ConfigError(f"{setting}: {name!a} is not a full method name such as /grpc.health.v1.Health/Check")
    return frozenset((names,) if isinstance(names, str) else names)
