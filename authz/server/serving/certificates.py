"""The server's own certificate, which may change while it serves."""

import contextlib
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from authz.errors import ConfigError
from authz.runtime import telemetry

_Marks = tuple[tuple[int, int, int], ...]


class Certificates:
    """The certificate of ``tls:`` addresses, read again whenever its files have changed.

    Files that cannot be used, because they are half written or do not belong
    together, are logged once, and the last good certificate stays.

    Args:
        cert_file: PEM, the server's certificate first, then the intermediate certificates.
        key_file: PEM, its private key, not encrypted.
        client_ca_file: PEM, the authorities of clients, which must then show a certificate.

    Raises:
        ConfigError: they cannot be used; the message names the setting.

    """

    def __init__(self, cert_file: str, key_file: str, client_ca_file: str | None = None) -> None:
        self._files = _Files(cert_file, key_file, client_ca_file)
        self._lock = threading.Lock()
        self._seen = self._files.marks()
        self._good = self._files.read()
        self._version = 0

    @classmethod
    def configured(cls, cert_file: str | None, key_file: str | None, client_ca_file: str | None) -> Self | None:
        """Return the certificates that the settings ask for, or ``None`` if they ask for none.

        Raises:
            ConfigError: a part is missing, or cannot be used.

        """
        given = {"tls_cert_file": cert_file, "tls_key_file": key_file}
        missing = [name for name, file in given.items() if not file]
        if missing == list(given) and not client_ca_file:
            return None
        if cert_file is None or key_file is None or missing:
            raise ConfigError(f"{missing[0]}: missing; TLS needs tls_cert_file and tls_key_file")
        return cls(cert_file, key_file, client_ca_file)

    def credentials(self) -> grpc.ServerCredentials:
        """Return the credentials of one address; each needs its own, because gRPC asks for news by address."""
        with self._lock:
            told, good = self._version, self._good

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal told
            # gRPC asks before every handshake, on a thread of its own.
            with self._lock:
                self._look()
                if told == self._version:
                    return None
                told = self._version
                return self._good

        return grpc.dynamic_ssl_server_credentials(
            good,
            changed,  # type: ignore[arg-type]  # None stands for no change
            require_client_authentication=self._files.client_ca_file is not None,
        )

    def context(self) -> ssl.SSLContext:
        """Return a context for HTTP/1.1, whose handshakes show the certificate that is in force by then."""
        context = self._files.context()
        now, version = context, self._version

        def choose(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            nonlocal now, version
            with self._lock:
                self._look()
                if version != self._version:
                    # Between the look and this the files may have changed once more.
                    with contextlib.suppress(OSError):
                        now, version = self._files.context(), self._version
            connection.context = now

        context.sni_callback = choose
        return context

    def _look(self) -> None:
        # Before the files are read: a change meanwhile is then noticed the next time.
        marks = self._files.marks()
        if marks == self._seen:
            return
        self._seen = marks
        try:
            self._good = self._files.read()
        except ConfigError as error:
            telemetry.event(telemetry.WARNING, "tls_certificate_refused", why=str(error))
            return
        self._version += 1
        telemetry.event(telemetry.INFO, "tls_certificate_reloaded", file=self._files.cert_file)


@dataclass(frozen=True, slots=True)
class _Files:
    cert_file: str
    key_file: str
    client_ca_file: str | None

    def context(self) -> ssl.SSLContext:
        """Return the context of a server that has them now.

        Raises:
            OSError: they cannot be used.

        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self.cert_file, self.key_file)
        if self.client_ca_file is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.client_ca_file)
        return context

    def marks(self) -> _Marks:
        """Return marks that differ between versions of the files, in whatever way they are replaced."""
        files = (self.cert_file, self.key_file, self.client_ca_file)
        return tuple(_mark(file) for file in files if file is not None)

    def read(self) -> grpc.ServerCertificateConfiguration:
        chain, key = _read("tls_cert_file", self.cert_file), _read("tls_key_file", self.key_file)
        certificate = _certificate("tls_cert_file", self.cert_file, chain)
        if _spki(_key("tls_key_file", self.key_file, key)) != _spki(certificate.public_key()):
            raise ConfigError(f"tls_key_file: {self.key_file!a} is not the key of the certificate in tls_cert_file")
        authorities = None
        if self.client_ca_file is not None:
            authorities = _read("tls_client_ca_file", self.client_ca_file)
            _certificate("tls_client_ca_file", self.client_ca_file, authorities)
        return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=authorities)


def _mark(file: str) -> tuple[int, int, int]:
    try:
        found = Path(file).stat()
    except OSError:
        return (0, 0, 0)
    return found.st_mtime_ns, found.st_ino, found.st_size


def _read(setting: str, file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except (OSError, ValueError):
        raise ConfigError(f"{setting}: {file!a} cannot be read") from None


def _certificate(setting: str, file: str, pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except ValueError:
        raise ConfigError(f"{setting}: {file!a} holds no certificate in PEM") from None


def _key(setting: str, file: str, pem: bytes) -> PublicKeyTypes:
    try:
        return load_pem_private_key(pem, None).public_key()
    except TypeError:
        raise ConfigError(f"{setting}: {file!a} is encrypted; decrypt it") from None
    except Exception:  # noqa: BLE001 - an extension fails in ways of its own
        raise ConfigError(f"{setting}: {file!a} holds no private key in PEM") from None


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
