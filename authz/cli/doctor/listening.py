"""Where this server is to listen: whether the addresses are free, and its certificate good."""

import contextlib
import errno
import socket
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from authz.cli.doctor.findings import Finding, fault, ok, skipped
from authz.cli.doctor.reaching import certificate_of
from authz.cli.doctor.running import program_at, status_of
from authz.cli.doctor.subject import Subject
from authz.envoy.config.authz_cluster import endpoints
from authz.errors import ConfigError
from authz.runtime.network.addresses import Address, parse
from authz.runtime.network.unix_sockets import check_not_in_use, check_path
from authz.settings.settings import Settings

_SOON = timedelta(days=14)
_IN_USE = "in use"


def addresses_of(settings: Settings) -> list[str]:
    """Return where a server with these settings listens: each worker has a Unix socket of its own, they share ports."""
    found: list[str] = []
    for given in settings.listen:
        found += endpoints([given], workers=settings.workers) if given.startswith("unix:") else [given]
    return found


def check_listen(subject: Subject) -> Iterator[Finding]:
    """See whether each address can be bound, which is not left bound."""
    settings = subject.settings
    for text in addresses_of(settings):
        yield from _of_address(subject, "listen", text, is_main=True)
    for name in ("forward_auth", "http_listen", "admin", "workos_webhooks", "audit_listen", "access_log_listen", "xds"):
        text = getattr(settings, name)
        # Envoy may also be told by a file.
        if text is not None and not text.startswith("file:"):
            yield from _of_address(subject, name, text, is_main=False)


def _of_address(subject: Subject, name: str, text: str, *, is_main: bool) -> Iterator[Finding]:
    try:
        address = parse(name, text)
        problem = _unix_problem(address, name) if address.kind == "unix" else _tcp_problem(address)
    except ConfigError as error:
        yield subject.wrong("listen-impossible", error)
        return
    if problem != _IN_USE:
        yield fault("listen-impossible", f"{name}: {text}: {problem}") if problem else ok(f"{text} is free ({name})")
        return
    status = status_of(text, subject.settings, subject.evidence.timeout) if is_main else ""
    if status:
        subject.serving[text] = status
    if status or (not is_main and subject.serving):
        yield ok(f"{text} is in use by a server of ours ({name})")
        return
    program = program_at(int(address.target.rpartition(":")[2])) if address.kind != "unix" else ""
    found = f"{name}: {text} is in use" + (f" by {program}" if program else "")
    yield fault("listen-in-use", found, "a free address, or a server of ours there")


def _tcp_problem(address: Address) -> str:
    """Return why an address of TCP cannot be bound; empty if it can."""
    host, _, port = address.target.rpartition(":")
    try:
        family, _, _, _, bound = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        return "no such host"
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As servers do it: connections of the past that still end are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(bound)
    except OSError as error:
        return _IN_USE if error.errno == errno.EADDRINUSE else error.strerror or "refused by the system"
    return ""


def _unix_problem(address: Address, name: str) -> str:
    """Return whether a socket is in use; empty if it is not.

    Raises:
        ConfigError: it can never be bound.

    """
    check_path(address.path, name)
    try:
        check_not_in_use([address.path], name)
    except ConfigError:
        return _IN_USE
    return ""


def check_certificate(subject: Subject) -> Iterator[Finding]:
    """See whether our own certificate is good, now and in two weeks."""
    settings = subject.settings
    files = settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file
    if not any(files):
        yield skipped("no tls_cert_file is set")
        return
    from authz.server.serving.certificates import Certificates  # noqa: PLC0415 - late: it loads grpc

    try:
        Certificates.configured(*files)
    except ConfigError as error:
        yield subject.wrong("certificate-unusable", error)
        return
    yield from _of_dates("tls_cert_file", str(settings.tls_cert_file), datetime.now(UTC))


def _of_dates(setting: str, file: str, now: datetime) -> Iterator[Finding]:
    chain: Sequence[x509.Certificate] = ()
    with contextlib.suppress(OSError, ValueError):
        chain = x509.load_pem_x509_certificates(Path(file).read_bytes())
    for certificate in chain[:1]:
        names, _, begins, ends = certificate_of(certificate)
        valid = f"{setting}: a certificate for {names}, valid from {begins:%Y-%m-%d} to {ends:%Y-%m-%d %H:%M} UTC"
        if not begins <= now <= ends:
            yield fault("certificate-expired", valid, f"one that is valid now, {now:%Y-%m-%d %H:%M} UTC")
        elif ends - now < _SOON:
            yield fault("certificate-expires", valid, f"one that is valid until {now + _SOON:%Y-%m-%d}")
        else:
            yield ok(valid)
