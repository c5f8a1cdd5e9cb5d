"""Where an issuer's endpoints are, by its own published metadata (RFC 8414, OpenID Connect Discovery)."""

from collections.abc import Collection, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from authz import causes
from authz.encoding import EncodingError, json_object
from authz.errors import ConfigError, KeySetUnavailableError
from authz.flow import Flow, Wait
from authz.transport import HttpResponse, Transport, TransportError, check_issuer_url, check_url

_PATIENCE = 10.0
_OK = 200
_MAX_CONTAINERS = 1024
_MOST_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerMetadata:
    """The endpoints of an issuer; a URL that it does not publish is ``None``.

    Nothing else of the document is used: it may not say which algorithms are good.
    """

    issuer: str
    jwks_uri: str
    introspection_endpoint: str | None = None
    token_endpoint: str | None = None


def discover(issuer: str, transport: Transport, *, allowed_hosts: Collection[str] = ()) -> Flow[IssuerMetadata]:
    """Fetch and check an issuer's metadata, as a flow.

    Args:
        issuer: the exact issuer.
        transport: what fetches it.
        allowed_hosts: hosts that endpoints may have besides the issuer's own.

    Raises:
        ConfigError: the document is another issuer's (a mix-up, RFC 8414 section 3.3), lacks ``jwks_uri``,
            or sends us to a host that is not allowed.
        KeySetUnavailableError: there is no such document, or it cannot be had now.

    """
    # What is of no use at one place may be there at the other: some servers answer everything with a page of theirs.
    reasons: list[str] = []
    mistake = ""
    for url in _locations(check_issuer_url(issuer)):
        try:
            document = yield from _fetch(url, transport)
        except _NoDocumentError as failure:
            reasons.append(str(failure))
            continue
        found = document.get("issuer")
        if found != issuer:
            mistake = (
                f"the metadata found at {url} is another issuer's, {str(found)[:_MOST_SHOWN]!a}; "
                "write it as the issuer does"
            )
        elif document.get("jwks_uri") is None:
            mistake = f"the metadata of {issuer} names no jwks_uri; give jwks_url"
        else:
            return _read(document, issuer, {*allowed_hosts, str(urlsplit(issuer).hostname)})
    if mistake:
        raise ConfigError(f"issuer: {mistake}")
    raise KeySetUnavailableError(f"no metadata of {issuer}: {', '.join(dict.fromkeys(reasons))}", cause=reasons[0])


class _NoDocumentError(Exception):
    """Why there is no document at an address, in the words of :mod:`authz.causes`."""


def _fetch(url: str, transport: Transport) -> Flow[Mapping[str, Any]]:
    try:
        answer: HttpResponse = yield Wait(transport.fetch("GET", url), _PATIENCE)
    except TransportError as failure:
        raise _NoDocumentError(failure.reason) from None
    except (TimeoutError, CancelledError) as failure:
        raise _NoDocumentError("timeout" if isinstance(failure, TimeoutError) else "closed") from None
    if answer.status != _OK:
        raise _NoDocumentError(causes.status(answer.status))
    try:
        return json_object(answer.body, max_containers=_MAX_CONTAINERS)
    except EncodingError:
        raise _NoDocumentError("not JSON") from None


def _locations(issuer: str) -> tuple[str, str]:
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    # RFC 8414 section 3.1 inserts its name between host and path; OpenID appends it.
    return (
        f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}",
        f"{issuer.rstrip('/')}/.well-known/openid-configuration",
    )


def _read(document: Mapping[str, Any], issuer: str, hosts: Collection[str]) -> IssuerMetadata:
    return IssuerMetadata(
        issuer=issuer,
        jwks_uri=_endpoint(document["jwks_uri"], "jwks_uri", hosts),
        introspection_endpoint=_optional(document, "introspection_endpoint", hosts),
        token_endpoint=_optional(document, "token_endpoint", hosts),
    )


def _optional(document: Mapping[str, Any], name: str, hosts: Collection[str]) -> str | None:
    url = document.get(name)
    return None if url is None else _endpoint(url, name, hosts)


def _endpoint(url: object, name: str, hosts: Collection[str]) -> str:
    if not isinstance(url, str):
        raise ConfigError(f"{name}: the issuer's metadata holds no URL there")
    check_url(url, name)
    host = str(urlsplit(url).hostname)
    # Else anybody who can change the document can have us ask any host that we can reach.
    if host not in hosts:
        raise ConfigError(f"{name}: the issuer's metadata names the host {host!a}; allow it with allowed_hosts")
    return url
