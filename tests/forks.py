"""Objects of which a child of fork has a copy, as a busy parent leaves them, and what is wrong with the copies."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from authz import Transport, Verifier
from authz.decisions.audit import Audit
from authz.decisions.log import DecisionLog
from authz.decisions.sample import Sample, Sampled
from authz.decisions.usage import Usage
from authz.issuer.discovery import DiscoveredEndpoint
from authz.issuer.remote_keys import _Places
from authz.judge.authorizer import Authorizer
from authz.judge.orders.file import OrdersFile
from authz.judge.streams import OpenStreams, Reviews
from authz.organizations.directory import Directory
from authz.organizations.quota import Quotas
from authz.runtime import fork
from authz.runtime.alarms import Alarms, Spaced
from authz.runtime.asking import Asking
from authz.runtime.clock import SYSTEM_CLOCK
from authz.runtime.shares import Shares
from authz.runtime.telemetry import LogSampling
from authz.runtime.threads import Repeating
from authz.runtime.watch import Watch
from authz.store.connection import Store
from authz.store.decisions import SharedDecisions
from authz.store.follower import Follower
from authz.store.leases import SharedQuotas
from authz.store.places import SharedPlaces
from authz.store.trips import Trips
from authz.token.memory import TokenMemory
from interceptors import AuthzInterceptor

ISSUER = "https://acme.authkit.app"


def _verifier() -> Verifier:
    return Verifier(issuer=ISSUER, audience="a")


def _trips() -> Trips:
    return Trips(Store("redis://127.0.0.1:1"))


BUILT: dict[str, Callable[[], object]] = {
    "authz.runtime.alarms.Alarms": lambda: Alarms("tests"),
    "authz.runtime.alarms.Spaced": lambda: Spaced("tests", few=1, seconds=1.0),
    "authz.runtime.asking.Asking": lambda: Asking("tests", SYSTEM_CLOCK),
    "authz.decisions.audit.Audit": Audit,
    "authz.runtime.fork.Lock": fork.Lock,
    "authz.decisions.log.DecisionLog": lambda: DecisionLog("all", os.devnull),
    "authz.organizations.directory.Directory": lambda: Directory(lambda _: None),
    "authz.issuer.discovery.DiscoveredEndpoint": lambda: DiscoveredEndpoint(ISSUER, "jwks_uri", Transport()),
    "authz.organizations.quota.Quotas": Quotas,
    "authz.issuer.remote_keys._Places": lambda: _Places(4),
    "authz.judge.orders.file.OrdersFile": lambda: OrdersFile(os.devnull, Authorizer(_verifier())),
    "authz.judge.streams.Reviews": lambda: Reviews([], lambda _stream, _questions: None, clock=SYSTEM_CLOCK),
    "authz.judge.streams.OpenStreams": OpenStreams,
    "authz.runtime.threads.Repeating": lambda: Repeating("tests", lambda: 1.0),
    "authz.store.follower.Follower": lambda: Follower(Store("unix:/nowhere"), Authorizer(_verifier()).operator),
    "authz.runtime.telemetry.LogSampling": LogSampling,
    "authz.runtime.shares.Shares": lambda: Shares(4),
    "authz.runtime.network.transport.Transport": Transport,
    "authz.decisions.sample.Sample": Sample,
    "authz.store.decisions.SharedDecisions": lambda: SharedDecisions(
        Store("unix:/nowhere"), lambda: Sampled([], 0), lambda: "a"
    ),
    "authz.store.leases.SharedQuotas": lambda: SharedQuotas(_trips()),
    "authz.store.places.SharedPlaces": lambda: SharedPlaces(_trips()),
    "authz.store.trips.Trips": _trips,
    "authz.token.memory.TokenMemory": lambda: TokenMemory(1 << 20),
    "authz.runtime.watch.Watch": lambda: Watch([], lambda _: None),
    "authz.decisions.usage.Usage": Usage,
    "interceptors.server.AuthzInterceptor": lambda: AuthzInterceptor(_verifier()),
}


def occupy(owner: object) -> object:
    """Take every lock and every place of a semaphore that ``owner`` has, and return it."""
    for _, value in _attributes(owner):
        if isinstance(value, type(threading.RLock())):
            # Another thread's: this one could take it any number of times.
            taking = threading.Thread(target=value.acquire)
            taking.start()
            taking.join()
        elif hasattr(value, "acquire"):
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
