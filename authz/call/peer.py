"""The other end of a connection, as far as the transport vouches for it."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jwcrypto.common import base64url_encode

_SPIFFE = "spiffe://"
_TLS = frozenset({b"ssl", b"tls"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who is at the other end of a connection: a client, or a proxy in front of it.

    Args:
        certificate: thumbprint of its certificate, whose key it has proven (``x5t#S256``: SHA-256, base64url); or
            ``""``.
        spiffe_id: the SPIFFE ID of that certificate, or ``""``. A certificate with several URIs has none
            (X.509-SVID section 2).
        dns_names: the DNS names of that certificate.
        principals: what a policy's ``source.principals`` is compared with (gRFC A43): the certificate's URIs, or if it
            has none its DNS names, or if it has neither its subject (RFC 4514); ``""`` over TLS without a certificate;
            none where there is no TLS.
        is_unix_socket: whether the connection came over a Unix socket.

    """

    certificate: str = ""
    spiffe_id: str = ""
    dns_names: frozenset[str] = frozenset()
    principals: tuple[str, ...] = ()
    is_unix_socket: bool = False

    @classmethod
    def of(cls, address: str, auth_context: Mapping[str, Any]) -> "Peer":
        """Return the peer that gRPC describes.

        Args:
            address: what ``context.peer()`` returns.
            auth_context: what ``context.auth_context()`` returns. A certificate is in it only if the handshake
                has verified it.

        Raises:
            ValueError: a certificate that cannot be read.

        """
        is_unix_socket = address.startswith("unix:")
        certificates = auth_context.get("x509_pem_cert")
        if certificates:
            return _certified(next(iter(certificates)), is_unix_socket)
        if _TLS.isdisjoint(auth_context.get("transport_security_type", ())):
            return _UNIX_SOCKET if is_unix_socket else PLAIN
        return cls(principals=("",), is_unix_socket=True) if is_unix_socket else OVER_TLS

    @classmethod
    def known_by_certificate(cls, pem: bytes) -> "Peer":
        """Return a peer that is known by its certificate alone, without the names in it.

        For a certificate that a proxy reports: the handshake proves its key, but perhaps no CA vouches for its names.

        Raises:
            ValueError: a certificate that cannot be read.

        """
        return cls(certificate=_certified(pem, False).certificate)  # noqa: FBT003 - by position, as the cache wants it


PLAIN = Peer()
"""A peer without TLS, of which nothing is known."""

OVER_TLS = Peer(principals=("",))
"""A peer that has shown no certificate."""

_UNIX_SOCKET = Peer(is_unix_socket=True)


# There are few peers and many calls: a proxy keeps a certificate for an hour or more.
@functools.lru_cache(1024)
def _certified(pem: bytes, is_unix_socket: bool) -> Peer:  # noqa: FBT001 - by position, as the cache wants it
    # Slow to load, and only servers with mutual TLS need it.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    certificate = x509.load_pem_x509_certificate(pem)
    uris: list[str] = []
    names: list[str] = []
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        pass
    else:
        uris = alternatives.get_values_for_type(x509.UniformResourceIdentifier)
        names = alternatives.get_values_for_type(x509.DNSName)
    return Peer(
        certificate=base64url_encode(certificate.fingerprint(SHA256())),
        spiffe_id=uris[0] if len(uris) == 1 and uris[0].startswith(_SPIFFE) else "",
        dns_names=frozenset(name.lower() for name in names),
        # One kind only, as in gRFC A41, Envoy and grpc-go 1.81: a CA that vouches for a URI need not vouch for the
        # subject. A43 reads as if all were compared.
        principals=tuple(filter(None, uris)) or tuple(filter(None, names)) or (certificate.subject.rfc4514_string(),),
        is_unix_socket=is_unix_socket,
    )
