"""Where a store is, as a setting says it; and the certificates for the way there."""

import ssl
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from authz.errors import ConfigError
from authz.runtime.network.urls import is_host

_EXAMPLE = "such as rediss://valkey.internal:6379"
_FORMS = "redis://HOST:PORT, rediss://HOST:PORT, unix:PATH or redis+sentinel://HOST:PORT,HOST:PORT/NAME"
_SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")
_PORT, _SENTINEL_PORT, _MAX_PORT = 6379, 26379, 65535


class Place(NamedTuple):
    """Where a store is: one host, a socket, or the Sentinels that know which host."""

    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    name: str = ""
    database: int = 0
    has_tls: bool = False


def place_of(url: str) -> Place:
    """Return where ``url`` points to.

    Raises:
        ConfigError: nowhere; or it holds a password.

    """
    # First, because the other messages quote the URL.
    if "@" in url:
        raise ConfigError("store: the URL must have no user or password; set store_username and store_password_file")
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        path = path.removeprefix("//") if path.startswith("//") else path
        if path and "?" not in path:
            return Place(path=path)
    scheme, separator, rest = url.partition("://")
    if scheme not in _SCHEMES or not separator or any(char <= " " or char > "~" or char in "?#\\" for char in rest):
        raise ConfigError(f"store: {url!a} is not {_FORMS}, {_EXAMPLE}")
    hosts, _, name = rest.partition("/")
    has_tls = scheme.startswith("rediss")
    if scheme.endswith("+sentinel"):
        if not name or "/" in name:
            raise ConfigError(f"store: {url!a} lacks the name of the primary that Sentinel watches, such as /mymaster")
        return Place(tuple(_host_of(url, each, _SENTINEL_PORT) for each in hosts.split(",")), "", name, 0, has_tls)
    if name and not (name.isascii() and name.isdecimal()):
        raise ConfigError(f"store: {url!a}: what follows the host is the number of a database")
    return Place((_host_of(url, hosts, _PORT),), database=int(name or 0), has_tls=has_tls)


def _host_of(url: str, text: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or "", port if parts.port is None else parts.port
    except ValueError:
        host = ""
    if not is_host(host) or not 0 < port <= _MAX_PORT:
        raise ConfigError(f"store: {url!a} is not {_FORMS}, {_EXAMPLE}")
    return host, port


def tls_of(ca_file: str | None, cert_file: str | None, key_file: str | None) -> dict[str, Any]:
    """Return the options of a client that uses TLS with these PEM files.

    Raises:
        ConfigError: one cannot be read, or of a certificate and its key one is missing.

    """
    if (cert_file is None) is not (key_file is None):
        raise ConfigError("store_cert_file: a certificate and its key belong together; set store_key_file, too")
    context = ssl.create_default_context()
    for setting, file in (("store_ca_file", ca_file), ("store_cert_file", cert_file)):
        try:
            if file is not None and setting == "store_ca_file":
                context.load_verify_locations(file)
            elif file is not None:
                context.load_cert_chain(file, key_file)
        except (OSError, ValueError):
            raise ConfigError(f"{setting}: {file!a} cannot be read as PEM") from None
    return {
        "ssl": True,
        "ssl_ca_certs": ca_file,
        "ssl_certfile": cert_file,
        "ssl_keyfile": key_file,
    }
