"""Where an issuer's endpoints are, by its own published metadata (RFC 8414, OpenID Connect Discovery)."""

from collections.abc import Collection, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from authz.encoding import EncodingError, json_object
from authz.errors import ConfigError, KeySetUnavailableError
from authz.flow import Flow, Wait
from authz.transport import HttpResponse, Transport, TransportError, check_issuer_url, check_url

_PATIENCE = 10.0
_OK = 200
_MAX_CONTAINERS = 1024


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
    error = ""
    for url in _locations(check_issuer_url(issuer)):
        try:
            response: Future[HttpResponse] = transport.fetch("GET", url)
            answer = yield Wait(response, _PATIENCE)
        except (TransportError, TimeoutError, CancelledError) as failure:
            error = failure.reason if isinstance(failure, TransportError) else type(failure).__name__
            continue
        if answer.status != _OK:
            error = f"HTTP status {answer.status}"
            continue
        return _read(answer, issuer, frozenset(allowed_hosts))
    raise KeySetUnavailableError(f"no metadata of {issuer}: {error}")


def _locations(issuer: str) -> tuple[str, str]:
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    # RFC 8414 section 3.1 inserts its name between host and path; OpenID appends it.
    return (
        f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}",
        f"{issuer.rstrip('/')}/.well-known/openid-configuration",
    )


def _read(answer: HttpResponse, issuer: str, allowed_hosts: frozenset[str]) -> IssuerMetadata:
    try:
        document = json_object(answer.body, max_containers=_MAX_CONTAINERS)
    except EncodingError as error:
        raise KeySetUnavailableError(f"the metadata of {issuer} is not JSON") from error
    if document.get("issuer") != issuer:
        raise ConfigError(f"issuer: the metadata found at {issuer} is another issuer's; write it as the issuer does")
    hosts = allowed_hosts | {str(urlsplit(issuer).hostname)}
    jwks_uri = _endpoint(document, "jwks_uri", hosts)
    if jwks_uri is None:
        raise ConfigError(f"issuer: the metadata of {issuer} names no jwks_uri; give jwks_url")
    return IssuerMetadata(
        issuer=issuer,
        jwks_uri=jwks_uri,
        introspection_endpoint=_endpoint(document, "introspection_endpoint", hosts),
        token_endpoint=_endpoint(document, "token_endpoint", hosts),
    )


def _endpoint(document: Mapping[str, Any], name: str, hosts: frozenset[str]) -> str | None:
    url = document.get(name)
    if url is None:
        return None
    if not isinstance(url, str):
        raise ConfigError(f"{name}: the issuer's metadata holds no URL there")
    check_url(url, name)
    host = str(urlsplit(url).hostname)
    # Else whoever can change the document can have us ask any host that we can reach.
    if host not in hosts:
        raise ConfigError(f"{name}: the issuer's metadata names the host {host!a}; allow it with allowed_hosts")
    return url
