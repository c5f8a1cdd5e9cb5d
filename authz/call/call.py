"""A call before its handler runs, and who makes it."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from authz.call.peer import Peer
from authz.errors import ConfigError, PermissionDeniedError

# No comma: a list of names is not one of them.
_METHOD = re.compile(r"/[^\s?#,]+")
_NO_CLAIMS: Mapping[str, Any] = MappingProxyType({})

MAX_METHOD = 8192
"""Characters of a path that is looked at: what servers take at the least (RFC 9110 section 4.1), and some more."""

MAX_ENTRIES = 512
"""Entries of metadata: five times what an Envoy lets through by default, and as many as 16 KiB of HTTP/2 can hold."""

MAX_METADATA_BYTES = 256 * 1024
"""All of them together: four times what an Envoy lets through by default, and sixteen times what gRPC does."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What is asked of a caller besides a good token, by whoever configures the door; it can only narrow.

    Args:
        audience: what ``aud`` must name besides; empty for no more than the verifier wants.
        scopes: what the token must grant, all of it (RFC 6749 section 3.3).
        policy: the name of the policy that decides; empty for no other than usual.
        mistake: what is written wrongly, so that nobody knows what is asked; nobody may make the call then.

    """

    audience: str = ""
    scopes: frozenset[str] = frozenset()
    policy: str = ""
    mistake: str = ""


class Call(NamedTuple):
    """An RPC, or a plain HTTP request, before anybody has looked at it.

    Args:
        method: the full method name, ``/package.Service/Method``, or an HTTP path without its query.
        metadata: every entry that the caller sent, in order, duplicates included.
        peer: the other end of the connection, or ``None`` where the door cannot tell, or not yet.
        credentials: the values of every ``authorization`` of ``metadata``, where the door has looked them up already.
        requirements: what the door asks besides; with any, no method is public.
        verified_claims: the payload of a token whose signature a proxy has checked that this door believes;
            they count only where the caller has sent no ``authorization``.
        size: how many bytes ``metadata`` has at the most, where the door knows it already.

    """

    method: str
    metadata: Metadata
    peer: Peer | None = None
    credentials: Sequence[str | bytes] | None = None
    requirements: Requirements | None = None
    verified_claims: Mapping[str, Any] | None = None
    size: int | None = None


def check_size(call: Call) -> None:
    """Check that ``call`` is small enough for every rule to look at all of it.

    Raises:
        PermissionDeniedError: its path is too long, or its metadata has too many entries or bytes.

    """
    if len(call.method) > MAX_METHOD or len(call.metadata) > MAX_ENTRIES:
        raise malformed()
    size = sum(map(len, chain.from_iterable(call.metadata))) if call.size is None else call.size
    if size > MAX_METADATA_BYTES:
        raise malformed()


def malformed() -> PermissionDeniedError:
    """Return the refusal of a request that names nothing that could be authorized, or is too large to be looked at."""
    return PermissionDeniedError("not a request that can be authorized", reason="request_malformed")


def check_methods(names: Collection[str], setting: str) -> frozenset[str]:
    """Return ``names`` if each is a full method name.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who makes a call, as the issuer's signature vouches for it; only the tenant is the owner's word.

    Args:
        org_id: the one organization that the caller acts for (``org_id``).
        client_id: the M2M application (``client_id``, RFC 9068 section 2.2).
        subject: ``sub``; for an M2M token the same as ``client_id``.
        scopes: the granted scopes, exact words (RFC 6749 section 3.3).
        issuer: ``iss``.
        audience: ``aud``, always as a tuple.
        token_id: ``jti``, or an empty string; identity for revocation and audit, never for trust.
        issued_at: ``iat`` in POSIX seconds, or ``None`` where the token has none.
        expires_at: ``exp`` in POSIX seconds.
        key_id: ``kid`` of the key that signed the token.
        key_thumbprint: that key's (RFC 7638), since several may share a ``kid``; or an empty string where it is
            not known. Of no account where two callers are compared.
        certificate: thumbprint of the one client certificate that the token may be used with
            (``x5t#S256``, RFC 8705 section 3.1), or an empty string for a bearer token.
        tenant: the API owner's own id for the organization, by the policy or the directory; or an empty string.
        claims: every claim of the token, read-only at every depth.

    """

    org_id: str
    client_id: str
    subject: str
    scopes: frozenset[str] = frozenset()
    issuer: str = ""
    audience: tuple[str, ...] = ()
    token_id: str = ""
    issued_at: float | None = None
    expires_at: float = 0.0
    key_id: str = ""
    key_thumbprint: str = field(default="", compare=False, repr=False)
    certificate: str = ""
    tenant: str = ""
    claims: Mapping[str, Any] = field(default_factory=lambda: _NO_CLAIMS, hash=False, repr=False)


ANONYMOUS = Principal(org_id="", client_id="", subject="")
"""The caller of a public method: nobody in particular. Compare with ``is``."""

_current: ContextVar[Principal] = ContextVar("authz_principal")


def current_principal() -> Principal:
    """Return who makes the RPC that this code serves, or ``ANONYMOUS`` on a public method.

    Raises:
        LookupError: no interceptor of this package has seen the RPC (or this is another thread).

    """
    try:
        return _current.get()
    except LookupError:
        raise LookupError(
            "no principal here: this code does not run inside an RPC that AuthzInterceptor admitted"
        ) from None


def set_current_principal(principal: Principal) -> None:
    """Make ``principal`` what :func:`current_principal` returns for the rest of this context.

    For the doors: they call it on every RPC, public ones too, so that no
    caller is left over where a context should ever be shared.
    """
    _current.set(principal)
