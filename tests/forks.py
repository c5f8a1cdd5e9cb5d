"""Objects of which a child of fork has a copy, as a busy parent leaves them, and what is wrong with the copies."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from authz import Authorizer, ClientCredentials, Introspector, Transport, Verifier
from authz.alarms import Alarms
from authz.audit_service import Audit
from authz.background import _Background
from authz.decision_log import DecisionLog
from authz.directory import Directory
from authz.discovery import DiscoveredEndpoint
from authz.endpoint import Endpoint
from authz.quota import Quotas
from authz.remote_keys import RemoteKeySet
from authz.revocation import Revocations
from authz.shares import Shares
from authz.streams import OpenStreams
from authz.suspension import Suspensions
from authz.watch import Watch
from interceptors import AuthzInterceptor

ISSUER = "https://acme.authkit.app"


def _verifier() -> Verifier:
    return Verifier(issuer=ISSUER, audience="a")


BUILT: dict[str, Callable[[], object]] = {
    "authz.alarms.Alarms": lambda: Alarms("tests"),
    "authz.audit_service.Audit": Audit,
    "authz.background._Background": _Background,
    "authz.decision_log.DecisionLog": lambda: DecisionLog("all", os.devnull),
    "authz.directory.Directory": lambda: Directory(lambda _: None),
    "authz.discovery.DiscoveredEndpoint": lambda: DiscoveredEndpoint(ISSUER, "jwks_uri", Transport()),
    "authz.introspection.Introspector": lambda: Introspector(ISSUER, client_id="c", client_secret="s"),
    "authz.quota.Quotas": Quotas,
    "authz.remote_keys.RemoteKeySet": lambda: RemoteKeySet(Endpoint(ISSUER, Transport())),
    "authz.revocation.Revocations": Revocations,
    "authz.shadow.Shadow": lambda: Authorizer(_verifier()).shadow,
    "authz.shares.Shares": lambda: Shares(4),
    "authz.streams.OpenStreams": OpenStreams,
    "authz.suspension.Suspensions": Suspensions,
    "authz.token_source.ClientCredentials": lambda: ClientCredentials(ISSUER, client_id="c", client_secret="s"),
    "authz.transport.Transport": Transport,
    "authz.verifier.Verifier": _verifier,
    "authz.watch.Watch": lambda: Watch([], lambda _: None),
    "interceptors.server.AuthzInterceptor": lambda: AuthzInterceptor(_verifier()),
}


def occupy(owner: object) -> object:
    """Take every lock and every place of a semaphore that ``owner`` has, and return it."""
    for _, value in _attributes(owner):
        if hasattr(value, "acquire"):
            while value.acquire(blocking=False):
                pass
    return owner


def left_over(owner: object) -> list[str]:
    """Return the names of the attributes that only the parent can do something with."""
    return [name for name, value in _attributes(owner) if _is_the_parents(value)]


def _attributes(owner: object) -> Iterator[tuple[str, Any]]:
    yield from vars(owner).items()


def _is_the_parents(value: Any) -> bool:
    if hasattr(value, "acquire"):
        is_free = value.acquire(blocking=False)
        if is_free:
            value.release()
        return not is_free
    if isinstance(value, threading.Thread):
        return not value.is_alive()
    return isinstance(value, Future) and not value.done()
