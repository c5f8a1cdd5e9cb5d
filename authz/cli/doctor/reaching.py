"""Why a server cannot be reached: what its certificate says, where that is the reason."""

import contextlib
import http.client
import ssl
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment

from cryptography import x509
from cryptography.x509.oid import NameOID

from authz.cli.doctor.findings import Finding, fault
from authz.runtime.network import causes
from authz.runtime.network.connecting import authorities, has_proxy
from authz.settings.settings import Settings

_CODES = {
    "certificate": "issuer-untrusted-certificate",
    "tls": "issuer-tls",
    "proxy": "issuer-proxy",
    "timeout": "issuer-slow",
}

# What OpenSSL finds wrong with a certificate (X509_V_ERR_…).
_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_HOST = (62, 64)
_HTTPS, _HTTP = 443, 80
_MOST_NAMES = 5


class Certificate(NamedTuple):
    """What the certificate of a server says."""

    names: str
    signer: str
    begins: datetime
    ends: datetime


def unreachable(url: str, cause: str, settings: Settings, timeout: float) -> Finding:
    """Return why no connection to ``url`` could be made.

    Args:
        url: of the server.
        cause: in a word of :mod:`authz.runtime.network.causes`.
        settings: those that say whom to trust, and whether there is a proxy.
        timeout: seconds that each attempt to find out more may take.

    """
    host = urlsplit(url).netloc
    if cause == "certificate":
        return _of_certificate(url, settings, timeout)
    return fault(_CODES.get(cause, "issuer-unreachable"), f"{host}: {in_words(cause)}")


def in_words(cause: str) -> str:
    """Return a word of :mod:`authz.runtime.network.causes` and what it means; what to do is the remedy's."""
    meaning, stop, _ = causes.meaning(cause).partition(". ")
    return f"{cause} ({meaning[:1].lower()}{meaning[1:]})" if stop else cause


def _of_certificate(url: str, settings: Settings, timeout: float) -> Finding:
    trusting = authorities(settings.ca_file)
    context = trusting if isinstance(trusting, ssl.SSLContext) else ssl.create_default_context()
    number, why = 0, "no trusted authority vouches for it"
    try:
        _connection(url, settings, context, timeout).close()
    except ssl.SSLCertVerificationError as error:
        number, why = error.verify_code, error.verify_message
    except (OSError, http.client.HTTPException):
        pass
    host, seen = urlsplit(url).hostname, _certificate(url, settings, timeout)
    if seen is None:
        return fault("issuer-untrusted-certificate", f"{host}: {why}")
    if number in (_EXPIRED, _NOT_YET_VALID):
        found = f"{host}: a certificate that is valid from {_day(seen.begins)} to {_day(seen.ends)}"
        return fault("issuer-certificate-expired", found, f"one that is valid now, {_day(datetime.now(UTC))}")
    if number in _OTHER_HOST:
        return fault("issuer-certificate-host", f"a certificate for {seen.names}", f"one for {host}")
    found = f"{host}: a certificate for {seen.names}, signed by {seen.signer} ({why})"
    trusted = f"in {settings.ca_file}" if settings.ca_file is not None else "of this system or in SSL_CERT_FILE"
    return fault("issuer-untrusted-certificate", found, f"one that is signed by an authority {trusted}")


def _connection(url: str, settings: Settings, context: ssl.SSLContext, timeout: float) -> http.client.HTTPSConnection:
    """Return a connection with TLS, through the proxy if there is to be one.

    Raises:
        OSError: there is none.
        HTTPException: the proxy answered something else than HTTP.

    """
    parts = urlsplit(url)
    host, port = str(parts.hostname), parts.port or _HTTPS
    if settings.proxy_from_env and has_proxy(url):
        proxies = getproxies_environment()
        proxy = urlsplit(proxies.get("https") or proxies.get("all", ""))
        connection = http.client.HTTPSConnection(
            str(proxy.hostname), proxy.port or _HTTP, timeout=timeout, context=context
        )
        connection.set_tunnel(host, port, _login(proxy.username, proxy.password))
    else:
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    connection.connect()
    return connection


def _login(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    from authz.issuer.endpoint import authenticated  # noqa: PLC0415 - seldom needed

    _, headers = authenticated({}, "client_secret_basic", unquote(user), unquote(password or ""))
    return {"Proxy-Authorization": headers["authorization"]}


def _certificate(url: str, settings: Settings, timeout: float) -> Certificate | None:
    """Return what the certificate says, which is not believed; ``None`` if it cannot be had."""
    # Nothing is sent on this connection, and nothing is believed but for showing it to the operator.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    # Another's certificate may be malformed in any way.
    malformed = ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType
    with contextlib.suppress(OSError, http.client.HTTPException, *malformed):
        connection = _connection(url, settings, context, timeout)
        with contextlib.closing(connection):
            secured: Any = connection.sock
            shown: bytes = secured.getpeercert(binary_form=True)
        return certificate_of(x509.load_der_x509_certificate(shown))
    return None


def certificate_of(certificate: x509.Certificate) -> Certificate:
    """Return in words what a certificate says.

    Raises:
        ValueError: it is malformed.

    """
    names = [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    with contextlib.suppress(x509.ExtensionNotFound):
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [str(name.value) for name in alternatives]
    signers = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    signer = str(signers[0].value) if signers else certificate.issuer.rfc4514_string()
    more = [f"and {len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
    return Certificate(
        ", ".join([*map(str, names[:_MOST_NAMES]), *more]) or "no name",
        signer or "no name",
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


def _day(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
