"""Mesh mode: which peers are believed when they say who calls.

Behind a proxy that asks an authorization server about every request, and
takes the token away, a backend has nothing left to verify. What it can verify
is the proxy, by the certificate of the connection or by its Unix socket.
"""

import functools
import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from authz.call.call import Call
from authz.call.metadata import TrustedMetadata
from authz.call.peer import Peer
from authz.call.principal import Principal
from authz.call.words import MAX_TIME, is_identifier, is_scope
from authz.errors import ConfigError, MeshMetadataError, MeshUndecidedError, PeerUnknownError
from authz.v1.principal_pb2 import Principal as PrincipalMessage

UNDECIDED = "x-envoy-auth-failure-mode-allowed"
"""What Envoy adds to a request that it lets pass without a verdict (``failure_mode_allow_header_add``)."""

# The SPIFFE ID standard, section 2, with the path that every X.509-SVID has (section 5.2 there).
_SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]+(/(?!\.{1,2}(/|$))[A-Za-z0-9._-]+)+", re.ASCII)
_DNS_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.ASCII)

# A token, which is longer than what is said of it, may have as many.
_MAX_MESSAGE_BYTES = 8192

_SECOND = 1_000_000_000
"""In nanoseconds."""


@dataclass(frozen=True, kw_only=True)
class MeshPeers:
    """The proxies that are believed when they say who calls.

    A peer is believed if one of these names it. Name a proxy only if it has
    every request checked, and removes the trusted metadata that callers send;
    ``authz envoy-config`` writes one that does.

    Args:
        spiffe_ids: exact SPIFFE IDs, such as ``spiffe://cluster.local/ns/edge/sa/gateway``, of the certificates
            that peers prove in mutual TLS.
        dns_names: exact DNS names of such certificates; no wildcards.
        unix_socket: believe every peer that connects by a Unix socket. The permissions of the socket's file then say
            which processes can; an abstract socket has none.

    Raises:
        ConfigError: nothing is named, or something that no certificate can hold.

    """

    spiffe_ids: Collection[str] = ()
    dns_names: Collection[str] = ()
    unix_socket: bool = False

    def __post_init__(self) -> None:
        """Check the names."""
        for setting, names in (("spiffe_ids", self.spiffe_ids), ("dns_names", self.dns_names)):
            if isinstance(names, str):
                raise ConfigError(f"mesh peers: {setting} needs a list of names, not a single one")
            object.__setattr__(self, setting, frozenset(names))
        for name in self.spiffe_ids:
            if not _is_like(_SPIFFE_ID, name):
                raise ConfigError(f"mesh peers: {name!a} is not a SPIFFE ID such as spiffe://cluster.local/ns/a/sa/b")
        for name in self.dns_names:
            if not _is_like(_DNS_NAME, name):
                raise ConfigError(f"mesh peers: {name!a} is not a DNS name in lower case, without wildcards")
        if not isinstance(self.unix_socket, bool):
            # A path, or the "false" of a variable, must not stand for every socket.
            raise ConfigError("mesh peers: unix_socket must be True or False")
        if not (self.spiffe_ids or self.dns_names or self.unix_socket):
            raise ConfigError("mesh peers: name at least one of spiffe_ids, dns_names and unix_socket")

    def __contains__(self, peer: Peer) -> bool:
        """Say whether ``peer`` is believed."""
        return (
            peer.spiffe_id in self.spiffe_ids
            or not peer.dns_names.isdisjoint(self.dns_names)
            or (self.unix_socket and peer.is_unix_socket)
        )

    def principal_of(self, call: Call, trusted: TrustedMetadata) -> Principal | None:
        """Return the caller that a believed peer names, or ``None`` if none does.

        Raises:
            MeshUndecidedError: Envoy let the call pass without a verdict.
            PeerUnknownError: the call names a caller, and its peer is not known yet.
            MeshMetadataError: what a believed peer says makes no sense.

        """
        org_ids, scopes, messages = _said(call, trusted)
        if not org_ids and not messages:
            return None
        if call.peer is None:
            raise PeerUnknownError("peer")
        if call.peer not in self:
            return None
        if len(messages) != 1:
            raise MeshMetadataError(f"exactly one {trusted.principal} is needed")
        principal, is_without_scopes = _principal(messages[0])
        if org_ids != [principal.org_id]:
            raise MeshMetadataError(f"{trusted.org_id} is not the organization of {trusted.principal}")
        if not is_without_scopes:
            return principal
        if len(scopes) != 1:
            raise MeshMetadataError(f"exactly one {trusted.scopes} is needed where {trusted.principal} omits them")
        return replace(principal, scopes=_words(scopes[0]))


def _is_like(pattern: re.Pattern[str], name: object) -> bool:
    return isinstance(name, str) and pattern.fullmatch(name) is not None


def _said(call: Call, trusted: TrustedMetadata) -> tuple[list[str | bytes], ...]:
    """Return the values of the metadata for organization, scopes and principal.

    Raises:
        MeshUndecidedError: Envoy let the call pass without a verdict.

    """
    said: dict[str, list[str | bytes]] = {trusted.org_id: [], trusted.scopes: [], trusted.principal: []}
    for name, value in call.metadata:
        # grpc does not refuse capital letters on every call.
        key = name.lower()
        if key == UNDECIDED:
            raise MeshUndecidedError
        if key in said:
            said[key].append(value)
    return tuple(said.values())


# A proxy says the same of every call with one token.
@functools.lru_cache(4096)
def _principal(data: str | bytes) -> tuple[Principal, bool]:
    """Return who calls, and whether the scopes were left out."""
    if not isinstance(data, bytes) or len(data) > _MAX_MESSAGE_BYTES:
        raise MeshMetadataError("not an authz.v1.Principal, or one that is too long")
    try:
        message = PrincipalMessage.FromString(data)
    except DecodeError as error:
        raise MeshMetadataError("not an authz.v1.Principal") from error
    if not is_identifier(message.org_id) or not message.HasField("expires_at"):
        raise MeshMetadataError("an authz.v1.Principal without org_id or expires_at")
    # These become headers, as those of tokens do, so their rules are the same.
    if not all(value == "" or is_identifier(value) for value in (message.client_id, message.subject, message.tenant)):
        raise MeshMetadataError("an authz.v1.Principal whose client_id, subject or tenant is no identifier")
    if not all(map(is_scope, message.scopes)):
        raise MeshMetadataError("an authz.v1.Principal with a scope that is not one word")
    principal = Principal(
        org_id=message.org_id,
        client_id=message.client_id,
        subject=message.subject,
        scopes=frozenset(message.scopes),
        issuer=message.issuer,
        audience=tuple(message.audience),
        token_id=message.token_id,
        issued_at=_seconds(message.issued_at) if message.HasField("issued_at") else None,
        expires_at=_seconds(message.expires_at),
        key_id=message.key_id,
        tenant=message.tenant,
    )
    return principal, "scopes" in message.omitted


@functools.lru_cache(1024)
def _words(scopes: str | bytes) -> frozenset[str]:
    words = scopes.split(" ") if isinstance(scopes, str) else []
    if not words or not all(map(is_scope, words)):
        raise MeshMetadataError("scopes that are not words with one space between them")
    return frozenset(words)


def _seconds(time: Timestamp) -> float:
    if not (0 <= time.seconds <= MAX_TIME and 0 <= time.nanos < _SECOND):
        raise MeshMetadataError("an authz.v1.Principal with a time that no token can have")
    return time.seconds + time.nanos / _SECOND
