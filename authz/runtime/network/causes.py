"""Why a request to another server failed: one word for each cause, the same wherever it is shown.

Logs, health, metrics, commands and the admin page all use these words. A text about a cause begins with its word, and
may say more in parentheses: ``status 401 (invalid_client)``.
"""

import re

MEANINGS = {
    "name": "The host name cannot be resolved. Check the URL for a typing error, and the name server of this machine.",
    "refused": "Nothing listens at the address and port. Check the URL, and whether the server runs.",
    "unreachable": "There is no route to the address. Check the network, its firewalls and NetworkPolicies.",
    "certificate": "No trusted authority vouches for the server under this name. Name the authority's PEM file with "
    "--ca-file or SSL_CERT_FILE; if the certificate has expired or is another host's, the server must fix it.",
    "tls": "The TLS handshake failed. Check that the port is for https, and which versions of TLS it supports.",
    "connect": "The connection failed for a reason that is not known here. Try `curl -v` from the same machine.",
    "proxy": "The proxy of the environment cannot be reached, or does not let the request through. Check HTTPS_PROXY "
    "and NO_PROXY, or leave out --proxy-from-env.",
    "timeout": "The whole answer did not come in time. Check whether a firewall drops packets, and how busy the "
    "server is.",
    "redirect": "The server redirects the request, which is never followed. Give the URL that it points to, if it is "
    "the issuer's.",
    "too_large": "The answer is larger than the limit. The URL is probably that of something else.",
    "encoding": "The compression of the answer is unknown or broken. Have the server, or the proxy before it, send "
    "answers uncompressed.",
    "protocol": "The answer is not HTTP, or is cut off. Check the port, and proxies on the way.",
    "closed": "This client was closed, or its thread has died, while the request was under way. The next request "
    "starts another; if it happens again, please report it.",
    "exhausted": "This process has no thread or file descriptor left. Raise its limits, such as `ulimit -n`.",
    "status": "The server answered with another HTTP status than 200. 404 is a wrong URL, 401 and 403 are wrong "
    "credentials or a firewall, 407 is a proxy, 429 asks for patience, and 5xx is a fault of the server's.",
    "not JSON": "The answer is not a JSON object, perhaps a web page. Check that the URL is not that of a login "
    "page or a portal.",
    "not a key set": "The answer is JSON, but not a JWK Set of at most 64 keys. The URL is that of something else.",
    "no usable key": "The key set has no key that can verify a signature; the log and `authz verify` name each key "
    "and what is wrong with it. The issuer must fix it.",
    "no token": "The token endpoint's answer holds no access token that can be used. Check that the URL is that of a "
    "token endpoint.",
    "expired": "The token endpoint gave a token that has expired already. Compare the clocks.",
    "secret": "Our own secret cannot be read. The text after the word names the file.",
    "metadata": "The issuer's metadata is another issuer's, lacks the endpoint, or names a host that is not allowed. "
    "Write --issuer as the issuer does, allow the host with --discover-hosts, or give the URL itself.",
    "mismatch": "The answer is about something else than was asked for. Check the URL, and whose credentials are used.",
    "not an organization": "The answer is not an organization of WorkOS's API. Check --workos-base-url.",
    "unforeseen": "Something unforeseen happened here. The log says where; please report it.",
}
"""By cause: what it means, and what to do."""

OTHER = "other"

_STATUS = re.compile(r"status ([1-5])[0-9]{2}", re.ASCII)


def status(number: int) -> str:
    """Return the cause for an HTTP status."""
    return f"status {number}"


def label(cause: str) -> str:
    """Return one of a few fixed names for ``cause``: its word, or the class of an HTTP status.

    Args:
        cause: a text that begins with the word; empty for none.

    """
    word = cause.partition(" (")[0]
    found = _STATUS.fullmatch(word)
    if found is not None:
        return f"status {found[1]}xx"
    return word if word in MEANINGS or not word else OTHER


def word(cause: str) -> str:
    """Return the word at the beginning of ``cause``, including the number of an HTTP status."""
    known = label(cause)
    return cause.partition(" (")[0] if known.startswith("status ") else known


def meaning(cause: str) -> str:
    """Return the explanation of ``cause``; empty if there is none."""
    known = label(cause)
    return MEANINGS.get("status" if known.startswith("status ") else known, "")
