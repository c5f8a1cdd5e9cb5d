"""``authz.v1.Audit``: shows decisions to watchers as they are made."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection
from functools import partial
from typing import Any, NoReturn

import grpc
import grpc.aio

from authz.call.principal import current_principal
from authz.decisions.decision import Decision, Record
from authz.decisions.message import decision_message
from authz.errors import ConfigError
from authz.runtime import fork
from authz.runtime.network.unix_sockets import Permissions, bind_socket, check_not_in_use, check_path
from authz.runtime.network.urls import is_loopback
from authz.v1 import audit_pb2_grpc
from authz.v1.audit_pb2 import WatchRequest, WatchResponse
from authz.v1.decision_pb2 import Decision as DecisionMessage

MAX_WATCHERS = 16
CAPACITY = 1000
MAX_BYTES = 2_097_152
"""How many bytes of memory the decisions that wait for one watcher may take."""
MAX_ITEMS = 100
"""How many items each list of a request may have, because every decision is compared with them."""


class Audit(audit_pb2_grpc.AuditServicer):
    """Show decisions to watchers: an observer of :class:`authz.Authorizer`, and a servicer for ``grpc.aio``.

    A watcher sees the calls of every organization. So serve it where callers of the API cannot reach it, with
    :func:`serve_audit` or on a server of your own. Behind ``AuthzInterceptor``, which admits those callers, it refuses
    every request.

    Args:
        max_watchers: how many may watch at a time.
        capacity: how many decisions may wait for a watcher; the oldest are dropped, and counted.
        max_bytes: how many bytes of memory those may take.

    """

    def __init__(
        self, *, max_watchers: int = MAX_WATCHERS, capacity: int = CAPACITY, max_bytes: int = MAX_BYTES
    ) -> None:
        self._max_watchers = max_watchers
        self._capacity, self._max_bytes = capacity, max_bytes
        self.after_fork()
        fork.register(self)

    @property
    def watchers(self) -> int:
        """How many watch now."""
        return len(self._watchers)

    def __call__(self, decision: Decision) -> None:
        """Take in one decision; never waits."""
        watchers = self._watchers
        if watchers:
            # Only the record waits, not the call: its headers may be large and hold the token.
            record = decision.record()
            for watcher in watchers:
                watcher.tell(record)

    async def Watch(  # type: ignore[override]  # noqa: N802 - gRPC's name, and the stub knows generators only
        self, request: WatchRequest, context: Any
    ) -> None:
        """See ``authz/v1/audit.proto``."""
        # Not a generator: grpc would not close it when a watcher leaves in the middle of a message.
        if _has_been_admitted():
            await _abort(context, grpc.StatusCode.PERMISSION_DENIED, "Audit is not for callers of the API")
        try:
            matches = _filter(request)
        except ValueError as error:
            await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        watcher = _Watcher(matches, self._capacity, self._max_bytes)
        if not self._add(watcher):
            await _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many watch already")
        try:
            await context.send_initial_metadata(())
            while True:
                record, dropped = await watcher.next()
                await context.write(WatchResponse(decision=decision_message(record), dropped=dropped))
        finally:
            self._remove(watcher)

    def after_fork(self) -> None:
        """Forget the watchers, which are the parent's."""
        self._lock = threading.Lock()
        # Replaced, never changed: threads that decide read it without the lock.
        self._watchers: tuple[_Watcher, ...] = ()

    def _add(self, watcher: "_Watcher") -> bool:
        with self._lock:
            has_room = len(self._watchers) < self._max_watchers
            if has_room:
                self._watchers = (*self._watchers, watcher)
        return has_room

    def _remove(self, watcher: "_Watcher") -> None:
        with self._lock:
            self._watchers = tuple(other for other in self._watchers if other is not watcher)


class _Watcher:
    """Decisions that wait for one watcher; added on any thread, read on the event loop that it is built in."""

    def __init__(self, matches: Callable[[Record], bool], capacity: int, max_bytes: int) -> None:
        self._matches = matches
        self._waiting: deque[Record] = deque()
        self._capacity, self._max_bytes = capacity, max_bytes
        self._bytes = 0
        self._dropped = 0
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._come = asyncio.Event()

    def tell(self, record: Record) -> None:
        if not self._matches(record):
            return
        size = record.size
        with self._lock:
            is_first = not self._waiting
            # Drop the oldest, so that the watcher catches up, and knows where the gap is.
            while self._waiting and not self._has_room(size):
                self._take()
                self._dropped += 1
            if not self._has_room(size):
                self._dropped += 1
                return
            self._waiting.append(record)
            self._bytes += size
        if is_first:
            self._loop.call_soon_threadsafe(self._come.set)

    async def next(self) -> tuple[Record, int]:
        """Return the next decision, and how many are missing before it."""
        while True:
            with self._lock:
                if self._waiting:
                    dropped, self._dropped = self._dropped, 0
                    return self._take(), dropped
            # A decision that is added from here on sets the event in a later turn of the loop.
            self._come.clear()
            await self._come.wait()

    def _has_room(self, size: int) -> bool:
        return len(self._waiting) < self._capacity and self._bytes + size <= self._max_bytes

    def _take(self) -> Record:
        record = self._waiting.popleft()
        self._bytes -= record.size
        return record


def _has_been_admitted() -> bool:
    try:
        current_principal()
    except LookupError:
        return False
    return True


def _filter(request: WatchRequest) -> Callable[[Record], bool]:
    lists = (request.verdicts, request.organizations, request.clients, request.method_prefixes, request.reasons)
    if any(len(items) > MAX_ITEMS for items in lists):
        raise ValueError(f"A list has more than {MAX_ITEMS} items")
    verdicts = {_verdict(number) for number in request.verdicts}
    organizations, clients, reasons = set(request.organizations), set(request.clients), set(request.reasons)
    prefixes = tuple(request.method_prefixes)

    def matches(record: Record) -> bool:
        return (
            _is_among(record.verdict, verdicts)
            and _is_among(record.organization, organizations)
            and _is_among(record.client, clients)
            and _is_among(record.reason, reasons)
            and (not prefixes or record.method.startswith(prefixes))
        )

    return matches


def _verdict(number: DecisionMessage.Verdict.ValueType) -> str:
    if number not in DecisionMessage.Verdict.values()[1:]:
        raise ValueError("verdicts: there is no such verdict")
    return DecisionMessage.Verdict.Name(number).removeprefix("VERDICT_").lower()


def _is_among(value: str, wanted: Collection[str]) -> bool:
    return not wanted or value in wanted


async def _abort(context: "grpc.aio.ServicerContext[Any, Any]", code: grpc.StatusCode, message: str) -> NoReturn:
    await context.abort(code, message)


@contextlib.asynccontextmanager
async def serve_audit(
    audit: Audit, address: str, *, permissions: Permissions | None = None, takes_over: bool = False
) -> AsyncIterator[str]:
    """Serve ``audit`` until the end of the block, to this machine only; yield the address in force.

    Args:
        audit: what to serve.
        address: ``HOST:PORT`` of loopback, where port 0 is any free one, or ``unix:PATH``.
        permissions: of the Unix socket; by default only its owner may connect.
        takes_over: whether to replace a server that listens on that socket; by default that is an error.

    Raises:
        ConfigError: the address is not of loopback, cannot be bound, or is a socket on which another server listens.

    """
    check_audit_address(address)
    # With several processes on one port, a watcher would see what one of them decides, without knowing which.
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    audit_pb2_grpc.add_AuditServicer_to_server(audit, server)
    with contextlib.ExitStack() as sockets:
        if address.startswith(_SOCKET):
            path = address.removeprefix(_SOCKET)
            if not takes_over:
                check_not_in_use([path], _SETTING)
            own = bind_socket(path, permissions or Permissions(), partial(_bind_socket, server), setting=_SETTING)
            sockets.callback(own.remove)
        else:
            address = f"{address.rpartition(':')[0]}:{_bind(server, address)}"
        await server.start()
        try:
            yield address
        finally:
            sockets.close()
            # Watchers never end by themselves.
            await server.stop(None)


_SETTING, _SOCKET = "audit_listen", "unix:"


def check_audit_address(address: str) -> None:
    """Check that only this machine can reach ``address``, without binding it.

    Raises:
        ConfigError: other machines can reach it, or the path cannot be a socket's.

    """
    if address.startswith(_SOCKET) and address != _SOCKET:
        check_path(address.removeprefix(_SOCKET), _SETTING)
        return
    host, _, port = address.rpartition(":")
    if not is_loopback(host.strip("[]")) or not port.isdecimal():
        raise ConfigError(
            f"{_SETTING}: {address!a} is not for this machine only; give HOST:PORT of loopback or unix:PATH"
        )


def _bind_socket(server: grpc.aio.Server, path: str) -> None:
    _bind(server, _SOCKET + path)


def _bind(server: grpc.aio.Server, address: str) -> int:
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise ConfigError(f"{_SETTING}: {address!a} cannot be bound; choose an address that is free")
    return port
