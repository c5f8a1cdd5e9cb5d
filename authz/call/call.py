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

# No comma: a list of names is not one name.
_METHOD = re.compile(r"/[^\s?#,]+")
_NO_CLAIMS: Mapping[str, Any] = MappingProxyType({})

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What the operator of a door requires of a caller in addition to a valid token; it can only narrow access.

    Args:
        audience: what ``aud`` must name in addition to what the verifier requires; empty for nothing more.
        scopes: what the token must grant, all of it (RFC 6749 section 3.3).
        policy: the name of the policy that decides; empty for the default policy.
        mistake: what is wrong in the configuration of these requirements; every call is refused then.

    """

    audience: str = ""
    scopes: frozenset[str] = frozenset()
    policy: str = ""
    mistake: str = ""


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

    """

    method: str
    metadata: Metadata
    peer: Peer | None = None
    credentials: Sequence[str | bytes] | None = None
    requirements: Requirements | None = None
    verified_claims: Mapping[str, Any] | None = None
    size: int | None = None


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
    """Return the refusal of a request whose path is ambiguous, or that is too large to be checked."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who makes a call, as the issuer's signature vouches for it; only the tenant is from the API's owner.

    Args:
        org_id: the one organization that the caller acts for (``org_id``).
        client_id: the M2M application (``client_id``, RFC 9068 section 2.2).
        subject: ``sub``; for an M2M token the same as ``client_id``.
        scopes: the granted scopes, case-sensitive (RFC 6749 section 3.3).
        issuer: ``iss``.
        audience: ``aud``, always as a tuple.
        token_id: ``jti``, or an empty string; for revocation and audit, never a ground for trust.
        issued_at: ``iat`` in POSIX seconds, or ``None`` where the token has none.
        expires_at: ``exp`` in POSIX seconds.
        key_id: ``kid`` of the key that signed the token.
        key_thumbprint: that key's (RFC 7638), since several may share a ``kid``; or an empty string where it is
            not known. It does not count when two callers are compared.
        certificate: thumbprint of the one client certificate that the token may be used with
            (``x5t#S256``, RFC 8705 section 3.1), or an empty string for a bearer token.
        tenant: the API owner's own id for the organization, from the policy or the directory; or an empty string.
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
"""The unknown caller of a public method. Compare with ``is``."""

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

    Doors call it on every RPC, public ones too, so that a context that RPCs share never holds an earlier caller.
    """
    _current.set(principal)
