"""The URLs that requests may go to: https, or http on this machine."""

import ipaddress
import re
from urllib.parse import urlsplit

from authz.errors import ConfigError

_MAX_HOST = 253
_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?", re.ASCII | re.IGNORECASE)
# Not valid in URLs (RFC 3986 section 2), but found in placeholders and between the items of lists.
_UNWRITABLE = frozenset('"<>^`{|}\\')


def check_url(url: str, setting: str) -> str:
    """Return ``url`` if requests may go there: https, or http on this machine.

    Args:
        url: an absolute URL.
        setting: what to call it in an error.

    Raises:
        ConfigError: it is not (RFC 9700 section 2.6 asks for TLS end to end), or it has credentials or a fragment.

    """
    if not url:
        # Also None, which os.environ.get() returns for a variable that is not set.
        raise ConfigError(f"{setting}: missing; give an absolute https URL, such as https://acme.authkit.app")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    # First, because the other messages quote the URL.
    if "@" in url or parts.fragment:
        raise ConfigError(f"{setting}: the URL must have no user, password or fragment")
    if not host or any(char <= " " or char > "~" or char == "\\" for char in url):
        raise ConfigError(f"{setting}: {url!a} is not an absolute https URL, such as https://acme.authkit.app")
    is_bracketed_name = "[" in parts.netloc and ":" not in host
    if not is_host(host) or is_bracketed_name or parts.netloc.endswith(":"):
        raise ConfigError(
            f"{setting}: {url!a} names no host; write one absolute URL, such as https://acme.authkit.app, "
            "with your own name in place of any placeholder"
        )
    if url.partition("?")[0].count("://") > 1 or not _UNWRITABLE.isdisjoint(url):
        raise ConfigError(
            f"{setting}: {url!a} is not one URL; write one, with your own name in place of any placeholder"
        )
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ConfigError(f"{setting}: {url!a} must use https (plain http is for loopback addresses only)")
    return url


def check_issuer_url(url: str) -> str:
    """Return ``url`` if it can be an issuer (RFC 8414 section 2): a URL that requests may go to, without a query.

    Raises:
        ConfigError: it cannot be one.

    """
    if "?" in check_url(url, "issuer"):
        raise ConfigError(f"issuer: {url!a} must have no query")
    return url


def is_host(name: str) -> bool:
    """Say whether ``name`` can be a host: an IP address, or a name of letters, digits, hyphens and underscores.

    RFC 1123 section 2.1, and underscores, which names inside a cluster may have.
    """
    address = ip_address(name)
    if address is None:
        return len(name) <= _MAX_HOST and _HOST.fullmatch(name) is not None
    # One with a zone names a network card of this machine.
    return not getattr(address, "scope_id", None)


def is_loopback(host: str) -> bool:
    """Say whether ``host`` names this very machine."""
    address = ip_address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that ``host`` is; ``None`` if it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
