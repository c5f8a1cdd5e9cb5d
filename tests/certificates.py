"""Certificates of a made-up authority, for both ends of mutual TLS."""

import base64
import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificate:
    """A certificate and its private key, in PEM."""

    chain: bytes
    key: bytes

    @property
    def thumbprint(self) -> str:
        """Its ``x5t#S256``, by other means than ours."""
        body = b"".join(line for line in self.chain.splitlines() if not line.startswith(b"-----"))
        return base64.urlsafe_b64encode(hashlib.sha256(base64.b64decode(body)).digest()).decode().rstrip("=")


class Authority:
    """Signs whatever it is asked to."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("authority")
        signed = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.root = signed.public_bytes(serialization.Encoding.PEM)

    def issue(
        self, *names: x509.GeneralName, common_name: str = "somebody", days: tuple[int, int] = (-1, 1)
    ) -> Certificate:
        """Return a certificate for ``names``; without any it has no such extension.

        It is valid from and to so many days from now.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(common_name), self._name, key.public_key(), days)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Certificate(signed.public_bytes(serialization.Encoding.PEM), private)

    def issue_for_loopback(self) -> Certificate:
        """Return a certificate of a server on this machine."""
        return self.issue(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


def uris(*values: str) -> Sequence[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(value) for value in values]


def dns(*values: str) -> Sequence[x509.GeneralName]:
    return [x509.DNSName(value) for value in values]


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: tuple[int, int] = (-1, 1)
) -> x509.CertificateBuilder:
    now, (begin, end) = datetime.now(UTC), days
    return (
        x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
        .not_valid_before(now + timedelta(days=begin))
        .not_valid_after(now + timedelta(days=end))
    )
