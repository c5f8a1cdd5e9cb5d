"""The trusted metadata: its names, how it is written, and what a caller may not send."""

import functools
import itertools
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from authz.call import Entry, Principal
from authz.errors import ConfigError
from authz.v1.principal_pb2 import Principal as PrincipalMessage

_NAME = re.compile(r"[a-z][a-z0-9-]*[a-z0-9]")
# Names that mean something to HTTP, to gRPC or to us already.
_TAKEN = frozenset({"authorization", "connection", "content-length", "content-type", "host", "te", "transfer-encoding"})
_REMEMBERED = 1024

_Entry = TypeVar("_Entry", bound=tuple[str, str | bytes])


@dataclass(frozen=True, kw_only=True)
class TrustedMetadata:
    """The names under which a backend finds who calls it; lower case, as gRPC writes them.

    Args:
        org_id: the organization; on every call that is not anonymous.
        client_id: the M2M application.
        scopes: the granted scopes, sorted, with one space between them; left out where there are none.
        tenant: the API owner's own id for the organization; left out where the policy knows none.
        principal: a serialized ``authz.v1.Principal``; its name must end in ``-bin``.

    Raises:
        ConfigError: a name that gRPC would not carry, or that stands twice.

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
        """Every key that no caller may send: the names, their ``-bin`` twins, and all with underscores.

        Servers that follow CGI read ``x_org_id`` and ``x-org-id`` as one variable.
        """
        return frozenset(itertools.chain.from_iterable(map(_spellings, self.removed)))

    @functools.cached_property
    def removed(self) -> tuple[str, ...]:
        """The keys that a proxy must take away: the names and their ``-bin`` twins."""
        return (*self.names, *(f"{name}-bin" for name in self.names if name != self.principal))

    def believed(self, metadata: Iterable[_Entry], principal: Principal) -> tuple[_Entry | Entry, ...]:
        """Return what a caller sent without anything that only we may say, and then what we say of it."""
        reserved = self.reserved
        # In any case: gRPC refuses names with capitals, but grpc.aio has begun to serve the RPC when it does.
        return (*[entry for entry in metadata if entry[0].lower() not in reserved], *self.entries(principal))

    def entries(self, principal: Principal) -> tuple[Entry, ...]:
        """Return the trusted entries for ``principal``; none for ``ANONYMOUS``, none that are empty."""
        return _entries(self, principal)


@functools.lru_cache(_REMEMBERED)
def _entries(names: TrustedMetadata, principal: Principal) -> tuple[Entry, ...]:
    if not principal.org_id:
        return ()
    entries = (
        Entry(names.org_id, principal.org_id),
        Entry(names.client_id, principal.client_id),
        Entry(names.scopes, " ".join(sorted(principal.scopes))),
        Entry(names.tenant, principal.tenant),
        Entry(names.principal, principal_message(principal).SerializeToString()),
    )
    return tuple(entry for entry in entries if entry.value)


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
        issued_at=None if principal.issued_at is None else _timestamp(principal.issued_at),
        expires_at=_timestamp(principal.expires_at),
        key_id=principal.key_id,
        tenant=principal.tenant,
    )


def _timestamp(seconds: float) -> Timestamp:
    whole = math.floor(seconds)
    return Timestamp(seconds=whole, nanos=int((seconds - whole) * 1e9))


def _spellings(name: str) -> Iterator[str]:
    for joints in itertools.product("-_", repeat=name.count("-")):
        words = name.split("-")
        yield words[0] + "".join(joint + word for joint, word in zip(joints, words[1:], strict=True))
