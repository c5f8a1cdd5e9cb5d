"""Where an issuer's endpoints are, by its own published metadata (RFC 8414, OpenID Connect Discovery)."""

import threading
from collections.abc import Collection, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from urllib.parse import urlsplit

from authz.errors import ConfigError, KeySetUnavailableError
from authz.issuer.endpoint import Endpoint
from authz.runtime import fork, telemetry
from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.runtime.flow import Flow, Wait, start
from authz.runtime.network import causes
from authz.runtime.network.transport import Form, HttpResponse, Transport, TransportError
from authz.runtime.network.urls import check_issuer_url, check_url, is_host
from authz.token.encoding import EncodingError, json_object

EndpointName = Literal["jwks_uri", "introspection_endpoint", "token_endpoint"]

KEPT = 300.0
"""Seconds after which an issuer's metadata is looked at again."""

_PATIENCE = 10.0
_OK, _SERVER_ERROR = 200, 500
# Statuses that concern the request and not the endpoint.
_OWN_WORDS = frozenset({400, 401, 429})
_FAILED = 400
_WORKOS_PATHS = {
    "jwks_uri": "/oauth2/jwks",
    "introspection_endpoint": "/oauth2/introspection",
    "token_endpoint": "/oauth2/token",
}
# The setting by which an operator can give each endpoint instead.
_SETTINGS = {"jwks_uri": "jwks_url", "introspection_endpoint": "introspection_url", "token_endpoint": "token_url"}
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
    try:
        document = yield from _document(issuer, "jwks_uri", transport)
    except MetadataError as failure:
        raise KeySetUnavailableError(failure.detail, cause=failure.cause) from None
    hosts, names = _hosts(issuer, allowed_hosts), [name for name in _SETTINGS if document.get(name) is not None]
    return IssuerMetadata(issuer=issuer, **{name: _endpoint(document[name], name, hosts) for name in names})


class MetadataError(TransportError):
    """An issuer's metadata cannot be had, or says nothing that could be used; ``reason`` says why.

    Args:
        cause: in a word of :mod:`authz.runtime.network.causes`.
        detail: more about the cause.
        is_outage: whether it could not be had, rather than not be used.

    """

    def __init__(self, cause: str, detail: str = "", *, is_outage: bool = False) -> None:
        super().__init__(f"{cause} ({detail})" if detail else cause)
        self.cause, self.detail, self.is_outage = cause, detail or cause, is_outage


class DiscoveredEndpoint(Endpoint):
    """Ask one endpoint of an issuer, wherever its metadata says that it is.

    The metadata is fetched when the endpoint is first asked, once for all who wait for it. It is looked at again
    before the next request where one has failed, and beside a request where it is older than :data:`KEPT`. What
    was found stays in use until something else is found.

    Args:
        issuer: the exact issuer.
        name: which endpoint.
        transport: what fetches the metadata, and asks.
        allowed_hosts: hosts that the endpoint may have besides the issuer's own.
        clock: where the time comes from.

    Raises:
        ConfigError: an argument that cannot be.

    """

    def __init__(
        self,
        issuer: str,
        name: EndpointName,
        transport: Transport,
        *,
        allowed_hosts: Collection[str] = (),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(check_issuer_url(issuer), transport)
        self._issuer, self._name = issuer, name
        self._hosts = _hosts(issuer, allowed_hosts)
        self._clock = clock
        self._found: str | None = None
        self._looked_at = clock.now()
        self._is_doubted = False
        self.after_fork()
        fork.register(self)

    @property
    def url(self) -> str:
        """What to call it in a message: where it was found, until then the issuer."""
        return self._found or self._issuer

    def fetch(
        self, method: str, *, form: Form | None = None, headers: Mapping[str, str] | None = None
    ) -> "Future[HttpResponse]":
        """Start one request; besides what a transport's may fail by, it may fail by :class:`MetadataError`."""
        answer: Future[HttpResponse] = Future()
        start(self._ask(method, form, headers), partial(_settle, answer))
        return answer

    def after_fork(self) -> None:
        """Forget the look that is under way, which is the parent's."""
        self._lock = threading.Lock()
        self._looking: Future[str] | None = None

    def _ask(self, method: str, form: Form | None, headers: Mapping[str, str] | None) -> Flow[HttpResponse]:
        url = yield from self._located()
        try:
            answer: HttpResponse = yield Wait(self._transport.fetch(method, url, form=form, headers=headers), _PATIENCE)
        except TimeoutError:
            self._doubt(url)
            raise TransportError("timeout") from None
        except TransportError:
            self._doubt(url)
            raise
        if answer.status >= _FAILED and answer.status not in _OWN_WORDS:
            self._doubt(url)
        return answer

    def _located(self) -> Flow[str]:
        with self._lock:
            found = None if self._is_doubted else self._found
            looking, is_ours = self._looking, False
            if looking is None and (found is None or self._clock.since(self._looked_at) >= KEPT):
                looking, is_ours = Future(), True
                self._looking, self._looked_at = looking, self._clock.now()
        if looking is not None and is_ours:
            start(self._look(), partial(self._finish, looking))
        if found is not None or looking is None:
            return str(found)
        url: str = yield Wait(looking, 2 * _PATIENCE)
        return url

    def _look(self) -> Flow[str]:
        try:
            document = yield from _document(self._issuer, self._name, self._transport)
            return _endpoint(document[self._name], self._name, self._hosts)
        except ConfigError as error:
            raise MetadataError("metadata", str(error)) from None

    def _finish(self, looking: "Future[str]", url: str | None, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, MetadataError):
            telemetry.unforeseen("discovery", error)
            error = MetadataError("unforeseen")
        with self._lock:
            # A forked child looks for itself.
            if self._looking is looking:
                self._looking = None
            self._is_doubted = False
            is_new = url is not None and url != self._found
            self._found = found = url or self._found
        facts = {"issuer": self._issuer, "endpoint": self._name}
        if error is not None:
            telemetry.event(telemetry.WARNING, "discovery_failed", **facts, error=str(error))
        elif is_new:
            telemetry.event(telemetry.INFO, "endpoint_discovered", **facts, url=url)
        _settle(looking, found, None if found is not None else error)

    def _doubt(self, url: str) -> None:
        with self._lock:
            # Not what has been found since.
            self._is_doubted = self._is_doubted or url == self._found


def issuer_endpoint(
    name: EndpointName,
    issuer: str | None,
    transport: Transport,
    *,
    url: str | None,
    setting: str,
    discover: bool,
    discover_hosts: Collection[str],
    clock: Clock,
) -> Endpoint:
    """Return an endpoint of an issuer: where we are told, where its metadata says, or where WorkOS has it.

    Args:
        name: which endpoint.
        issuer: the exact issuer; not needed with ``url``.
        transport: what asks it.
        url: where it is.
        setting: what to call ``url`` in an error.
        discover: look it up in the metadata.
        discover_hosts: hosts that it may have then, besides the issuer's own.
        clock: where the time comes from.

    Raises:
        ConfigError: an argument that cannot be, or two that say where it is.

    """
    if url is not None:
        if discover:
            raise ConfigError(f"discover: {setting} says already where to ask; give one of them")
        endpoint = Endpoint(check_url(url, setting), transport)
    elif discover:
        return DiscoveredEndpoint(str(issuer), name, transport, allowed_hosts=discover_hosts, clock=clock)
    else:
        endpoint = Endpoint(check_issuer_url(str(issuer)).rstrip("/") + _WORKOS_PATHS[name], transport)
    if discover_hosts:
        raise ConfigError("discover_hosts: needs discover, without which no host is looked up")
    return endpoint


def metadata_urls(issuer: str) -> tuple[str, str]:
    """Return where an issuer may have its metadata, in the order in which it is looked for."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    # RFC 8414 section 3.1 inserts its name between host and path; OpenID appends it.
    return (
        f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}",
        f"{issuer.rstrip('/')}/.well-known/openid-configuration",
    )


def _hosts(issuer: str, allowed: Collection[str]) -> frozenset[str]:
    hosts = [allowed] if isinstance(allowed, str) else allowed
    for host in hosts:
        if not is_host(host):
            raise ConfigError(f"discover_hosts: {host!a} is no name of a host, such as keys.acme.example")
    # In lower case, as URLs are compared with them.
    return frozenset({str(urlsplit(issuer).hostname), *map(str.lower, hosts)})


def _settle(future: "Future[Any]", result: object, error: BaseException | None) -> None:
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _document(issuer: str, needed: EndpointName, transport: Transport) -> Flow[Mapping[str, Any]]:
    """Return the issuer's metadata, which names the endpoint that is ``needed``.

    Raises:
        ConfigError: what was found is another issuer's, or does not name it.
        MetadataError: nothing was found.

    """
    # Go on after a document that is of no use: some servers answer every path with a page of theirs.
    failures: list[MetadataError] = []
    mistake = ""
    for url in metadata_urls(check_issuer_url(issuer)):
        try:
            document = yield from _fetch(url, transport)
        except CancelledError:
            # Or the other place would be asked although the transport is closed.
            raise MetadataError("closed") from None
        except MetadataError as failure:
            failures.append(failure)
            continue
        found = document.get("issuer")
        if found != issuer:
            mistake = (
                f"the metadata found at {url} is another issuer's, {str(found)[:_MOST_SHOWN]!a}; "
                "write it as the issuer does"
            )
        elif document.get(needed) is None:
            mistake = f"the metadata of {issuer} names no {needed}; give {_SETTINGS[needed]}"
        else:
            return document
    if mistake:
        raise ConfigError(f"issuer: {mistake}")
    detail = f"no metadata of {issuer}: {', '.join(dict.fromkeys(failure.reason for failure in failures))}"
    is_outage = all(failure.is_outage for failure in failures)
    raise MetadataError(failures[0].cause, detail, is_outage=is_outage)


def _fetch(url: str, transport: Transport) -> Flow[Mapping[str, Any]]:
    try:
        answer: HttpResponse = yield Wait(transport.fetch("GET", url), _PATIENCE)
    except TransportError as failure:
        raise MetadataError(failure.reason, is_outage=failure.is_outage) from None
    except TimeoutError:
        raise MetadataError("timeout", is_outage=True) from None
    if answer.status != _OK:
        raise MetadataError(causes.status(answer.status), is_outage=answer.status >= _SERVER_ERROR)
    try:
        return json_object(answer.body, max_containers=_MAX_CONTAINERS)
    except EncodingError:
        raise MetadataError("not JSON") from None


def _endpoint(url: object, name: str, hosts: Collection[str]) -> str:
    if not isinstance(url, str):
        raise ConfigError(f"{name}: the issuer's metadata holds no URL there")
    check_url(url, name)
    host = str(urlsplit(url).hostname)
    # Otherwise anyone able to change the document could direct our requests to any host within reach.
    if host not in hosts:
        raise ConfigError(f"{name}: the issuer's metadata names the host {host!a}; allow it with allowed_hosts")
    return url
