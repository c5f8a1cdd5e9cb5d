"""What a request needs to reach its server: names, routes, certificates, and real threads."""

import errno
import functools
import os
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from authz.errors import ConfigError

CAUSES = ("name", "refused", "unreachable", "certificate", "tls", "connect")
"""What :func:`cause_of` returns."""

_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL)


def cause_of(error: BaseException) -> str:
    """Return in one word why a connection failed; each word has its own remedy.

    - ``name``: the host name cannot be resolved.
    - ``refused``: nothing listens at the address.
    - ``unreachable``: there is no route to it.
    - ``certificate``: no trusted authority vouches for the server under that name.
    - ``tls``: the TLS handshake failed, or the server does not use TLS.
    - ``connect``: anything else.
    """
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "certificate"
        if isinstance(cause, ssl.SSLError):
            return "tls"
        if isinstance(cause, socket.gaierror):
            return "name"
        if isinstance(cause, ConnectionRefusedError):
            return "refused"
        if isinstance(cause, OSError) and cause.errno in _UNREACHABLE:
            return "unreachable"
    return "connect"


def authorities(ca_file: str | None) -> ssl.SSLContext | bool:
    """Return the CAs to trust.

    Args:
        ca_file: PEM file of the CAs; by default what ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` name.

    Returns:
        A context, or ``True`` for the system's CAs.

    Raises:
        ConfigError: the file cannot be read.

    """
    setting, file, folder = "ca_file", ca_file, None
    if ca_file is None:
        setting = "SSL_CERT_FILE"
        file, folder = os.environ.get("SSL_CERT_FILE") or None, os.environ.get("SSL_CERT_DIR") or None
        if file is None and folder is None:
            return True
    elif not ca_file:
        # To Python, an empty name means all CAs of the system.
        raise ConfigError("ca_file: empty; name a PEM file, or leave it out to trust the system's authorities")
    try:
        return _context(file, folder, _stamp(file))
    except (OSError, ValueError):
        raise ConfigError(f"{setting}: {file!a} cannot be read as PEM certificates") from None


# Reading the CAs of a system takes tens of milliseconds, and every issuer asks for them.
@functools.lru_cache(8)
def _context(file: str | None, folder: str | None, _stamp: tuple[int, ...]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=file, capath=folder)


def _stamp(file: str | None) -> tuple[int, ...]:
    """Return what changes when ``file`` is written or replaced.

    Raises:
        OSError: there is no such file.

    """
    if file is None:
        return ()
    found = Path(file).stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def has_proxy(url: str) -> bool:
    """Say whether the environment names a proxy for ``url``."""
    # Late: whatever asks this has loaded an HTTP client by now.
    from urllib.request import getproxies_environment, proxy_bypass  # noqa: PLC0415

    parts, proxies = urlsplit(url), getproxies_environment()
    return (
        parts.scheme == "https" and not proxies.keys().isdisjoint(("https", "all")) and not proxy_bypass(parts.netloc)
    )


def has_descriptor() -> bool:
    """Say whether this process has a file descriptor left."""
    # Tried, because the errno does not tell: without a descriptor, name resolution fails as if no name server answered.
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True


def check_threads_are_real() -> None:
    """Check that threads and ``select`` are Python's own.

    Raises:
        ConfigError: gevent or eventlet has replaced them.

    """
    # They run all of Python's threads in one system thread, in which asyncio runs only one loop: a second
    # thread with a loop would end at once.
    for module, is_patched in (("gevent.monkey", "is_module_patched"), ("eventlet.patcher", "is_monkey_patched")):
        patcher = sys.modules.get(module)
        if patcher is not None and any(
            getattr(patcher, is_patched)(name) for name in ("threading", "thread", "select")
        ):
            raise ConfigError(
                f"{module.partition('.')[0]}: it has replaced threads or select in this process, and asking an issuer "
                "needs the real ones; run this in a process that is not patched, such as a worker of kind gthread"
            )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that led to it; each of a host's addresses may have failed in its own way."""
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop()
        if cause is None:
            continue
        yield cause
        waiting.append(cause.__cause__ or cause.__context__)
        if isinstance(cause, BaseExceptionGroup):
            waiting.extend(cause.exceptions)
