"""The trusted metadata: its names, its encoding, and what a caller may not send."""

import functools
import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TypeVar

from authz.call.call import Entry
from authz.call.known import Known
from authz.call.principal import Principal
from authz.call.principal_bytes import principal_bytes, timestamp
from authz.call.words import spellings
from authz.errors import ConfigError
from authz.runtime import telemetry
from authz.v1.principal_pb2 import Principal as PrincipalMessage

_NAME = re.compile(r"[a-z][a-z0-9-]*[a-z0-9]")
# The prefixes that grpc-gateway strips from a header, and adds to one, when it makes metadata of it.
_PREFIXES = ("grpc-metadata-", "grpcgateway-")
# Names that HTTP, gRPC or this package uses already.
_TAKEN = frozenset({"authorization", "connection", "content-length", "content-type", "host", "te", "transfer-encoding"})
_REMEMBERED = 1024

KNOWN_NAMES, LONGEST_KNOWN_NAME = 1024, 64
"""How many names of entries are remembered, and how long ones: the caller chooses them, and services use fewer."""

MAX_ADDED_BYTES = 3072
"""What is added to a call, as HTTP/2 counts bytes: beyond this the scopes are added only once, under their own name.

A gRPC server accepts 8 KiB of metadata by default, and refuses larger metadata at random. A token with 2048 characters
of scopes, the most that it may have, takes 4 KiB; with this limit there is room left for what proxies add.
"""

# RFC 9113 section 6.5.2: for each entry.
_OVERHEAD_BYTES = 32

_Entry = TypeVar("_Entry", bound=tuple[str, str | bytes])


@dataclass(frozen=True, kw_only=True)
class TrustedMetadata:
    """The names under which a backend finds its caller; lower case, as gRPC writes them.

    Args:
        org_id: the organization; sent with every call that is not anonymous.
        client_id: the M2M application.
        scopes: the granted scopes, sorted, with one space between them; left out where there are none.
        tenant: the API owner's own id for the organization; left out where the policy knows none.
        principal: a serialized ``authz.v1.Principal``; its name must end in ``-bin``. If all of this would be longer
            than :data:`MAX_ADDED_BYTES`, it lacks the scopes, and its ``omitted`` says so.

    Raises:
        ConfigError: a name that gRPC would not carry, or that is given twice.

    """

    org_id: str = "x-org-id"
    client_id: str = "x-client-id"
    scopes: str = "x-scopes"
    tenant: str = "x-org-tenant"
    principal: str = "x-authz-principal-bin"

    def __post_init__(self) -> None:
        """Check the names."""
        for name in self.names:
            if name in _TAKEN:
                raise ConfigError(f"trusted metadata: {name!a} has a meaning already; choose a name like x-org-id")
            binary = name == self.principal
            if not _NAME.fullmatch(name) or name.startswith("grpc-") or name.endswith("-bin") is not binary:
                rule = "end in -bin" if binary else "not end in -bin"
                raise ConfigError(f"trusted metadata: {name!a} must be a lower-case header name and {rule}")
        if len(set(self.names)) != len(self.names):
            raise ConfigError("trusted metadata: the names must differ from each other")

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The trusted names."""
        return tuple(getattr(self, field.name) for field in fields(self))

    @functools.cached_property
    def reserved(self) -> frozenset[str]:
        """Every key that no caller may send: the names and their ``-bin`` twins, also with underscores for hyphens.

        Servers that follow CGI read ``x_org_id`` and ``x-org-id`` as the same variable.
        """
        return frozenset(itertools.chain.from_iterable(map(spellings, self.removed)))

    @functools.cached_property
    def removed(self) -> tuple[str, ...]:
        """The keys that a proxy must remove: the names and their ``-bin`` twins."""
        return (*self.names, *(f"{name}-bin" for name in self.names if name != self.principal))

    @functools.cached_property
    def prefixed(self) -> tuple[str, ...]:
        """The keys that grpc-gateway, behind a proxy, turns into one of ``removed``."""
        return tuple(prefix + name for prefix in _PREFIXES for name in self.removed)

    @functools.cached_property
    def forgeable(self) -> tuple[str, ...]:
        """Every key that a proxy must remove before it reads anything else: ``reserved``, with and without prefixes."""
        return (*sorted(self.reserved), *(prefix + name for prefix in _PREFIXES for name in sorted(self.reserved)))

    def believed(self, metadata: Iterable[_Entry], principal: Principal) -> tuple[_Entry | Entry, ...]:
        """Return what the caller sent without any reserved key, and then the trusted entries for ``principal``."""
        harmless = self._harmless
        kept = [entry for entry in metadata if entry[0] in harmless or not self._is_forged(entry[0])]
        return (*kept, *self.entries(principal))

    def glance(self, metadata: Iterable[tuple[str, str | bytes]]) -> tuple[list[str | bytes], int] | None:
        """Return every ``authorization`` of a call and the bytes of its metadata, if that has no unusual name.

        Of such metadata :meth:`believed` keeps every entry. ``None`` says nothing but that more must be looked at.
        """
        harmless, size = self._harmless, 0
        credentials: list[str | bytes] = []
        for entry in metadata:
            key, value = entry[0], entry[1]
            if key not in harmless:
                return None
            size += len(key) + len(value)
            if key == "authorization":
                credentials.append(value)
        return credentials, size

    @functools.cached_property
    def _harmless(self) -> set[str]:
        """The names that have been seen, in lower case, and are not forged."""
        return set()

    def _is_forged(self, name: str) -> bool:
        # Compared in lower case: gRPC refuses names with capitals, but grpc.aio only once it serves the RPC already.
        key = name.lower()
        if key in self.reserved or (key.startswith(_PREFIXES) and is_forged(key, self.reserved)):
            return True
        # Only in lower case, so that one with capitals is looked at each time.
        if len(key) <= LONGEST_KNOWN_NAME and len(self._harmless) < KNOWN_NAMES:
            self._harmless.add(key)
        return False

    def entries(self, principal: Principal) -> tuple[Entry, ...]:
        """Return the trusted entries for ``principal`` that are not empty; none for ``ANONYMOUS``."""
        return self._known.of(principal) or self._known.remember(principal, self._entries(principal))

    @functools.cached_property
    def _known(self) -> Known[tuple[Entry, ...]]:
        return Known(_REMEMBERED)

    def _entries(self, principal: Principal) -> tuple[Entry, ...]:
        if not principal.org_id:
            return ()
        said, room = _words(self, principal.org_id, principal.client_id, principal.scopes, principal.tenant)
        data = principal_bytes(principal)
        if principal.scopes and _base64_bytes(len(data)) > room:
            data = _without_scopes(principal)
            _tell(principal.org_id, principal.client_id)
        return (*said, Entry(self.principal, data))


@functools.lru_cache(_REMEMBERED)
def _words(
    names: TrustedMetadata, org_id: str, client_id: str, scopes: frozenset[str], tenant: str
) -> tuple[tuple[Entry, ...], int]:
    """Return what all tokens of an application say in words, and how many bytes are left for the principal."""
    words = (
        Entry(names.org_id, org_id),
        Entry(names.client_id, client_id),
        Entry(names.scopes, " ".join(sorted(scopes))),
        Entry(names.tenant, tenant),
    )
    said = tuple(entry for entry in words if entry.value)
    taken = sum(len(entry.key) + len(entry.value) + _OVERHEAD_BYTES for entry in said)
    return said, MAX_ADDED_BYTES - taken - len(names.principal) - _OVERHEAD_BYTES


def _without_scopes(principal: Principal) -> bytes:
    message = principal_message(principal)
    message.ClearField("scopes")
    message.omitted.append("scopes")
    return message.SerializeToString()


def _base64_bytes(size: int) -> int:
    return math.ceil(size / 3) * 4


# Remembered, so that each client is logged once and not for every token; of so many clients.
@functools.lru_cache(_REMEMBERED)
def _tell(org_id: str, client_id: str) -> None:
    telemetry.event(telemetry.WARNING, "principal_shortened", org_id=org_id, client_id=client_id, omitted="scopes")


def principal_message(principal: Principal) -> PrincipalMessage:
    """Return ``principal`` as the message that crosses process borders."""
    return PrincipalMessage(
        org_id=principal.org_id,
        client_id=principal.client_id,
        subject=principal.subject,
        scopes=sorted(principal.scopes),
        issuer=principal.issuer,
        audience=principal.audience,
        token_id=principal.token_id,
        issued_at=None if principal.issued_at is None else timestamp(principal.issued_at),
        expires_at=timestamp(principal.expires_at),
        key_id=principal.key_id,
        tenant=principal.tenant,
    )


def is_forged(key: str, reserved: frozenset[str]) -> bool:
    """Say whether ``key`` is reserved, or becomes so once any number of grpc-gateway's prefixes is stripped."""
    while key not in reserved:
        if not key.startswith(_PREFIXES):
            return False
        key = key.removeprefix(next(prefix for prefix in _PREFIXES if key.startswith(prefix)))
    return True
