"""The authorization server on ``pygrpc-native``, whose HTTP/2 runs in Rust, outside the GIL: a fifth of the CPU time.

Requests come as bytes, in batches, to one thread for each address, which
decides what it can at once: mostly everything. A request that must wait, for
keys or for the issuer's word, is gone on with by the thread that brings them.
The library has no TLS, so this engine is for a sidecar: loopback and Unix sockets.
"""

import asyncio
import threading
from functools import partial

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from pygrpc_native import EVENT_CALL, NativeGrpcFront

from authz.envoy.servicer import SERVICE, AuthorizationServicer
from authz.errors import ConfigError
from authz.flow import start
from authz.transport import is_loopback

_HEALTH = "/grpc.health.v1.Health"
_METHODS = ((f"/{SERVICE}/Check", False), (f"{_HEALTH}/Check", False), (f"{_HEALTH}/Watch", True))
_CHECK, _HEALTH_CHECK, _WATCH = range(3)

_BATCH = 64
_NOT_FOUND = 5


class NativeEngine:
    """Serve ``Check`` and ``grpc.health.v1``; see :class:`authz.envoy.server.Engine`."""

    def __init__(self, servicer: AuthorizationServicer) -> None:
        self._servicer = servicer
        self._fronts: list[NativeGrpcFront] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._status = int(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._is_stopping = False
        self._watchers: set[tuple[NativeGrpcFront, int]] = set()
        # Requests that have begun to wait, less those that have been answered.
        self._waiting = 0
        self._answered = threading.Event()

    def bind(self, address: str) -> int:
        """See :class:`authz.envoy.server.Engine`.

        Raises:
            ConfigError: an address that other machines can reach, or one that cannot be bound.

        """
        if not address.startswith("unix:") and not is_loopback(address.rpartition(":")[0].strip("[]")):
            raise ConfigError(
                f"listen: {address!a} can be reached by other machines, and the native engine has no TLS; "
                "use a loopback address, unix:PATH, or --engine grpcio"
            )
        try:
            front = NativeGrpcFront(address, _METHODS)
        except (OSError, ValueError):
            raise ConfigError(
                f"listen: {address!a} cannot be bound: it is in use or not an address of this machine; choose another"
            ) from None
        self._fronts.append(front)
        return front.bound_port

    async def start(self) -> None:
        """See :class:`authz.envoy.server.Engine`."""
        for front in self._fronts:
            front.start()
            thread = threading.Thread(target=self._serve, args=(front,), name="authz-native", daemon=True)
            thread.start()
            self._threads.append(thread)

    async def set_health(self, status: int) -> None:
        """See :class:`authz.envoy.server.Engine`."""
        with self._lock:
            if self._is_stopping:
                return
            self._status = status
            self._tell_watchers()

    async def stop(self, grace: float) -> None:
        """See :class:`authz.envoy.server.Engine`."""
        with self._lock:
            self._is_stopping = True
            self._status = int(health_pb2.HealthCheckResponse.NOT_SERVING)
            self._tell_watchers()
            if not self._waiting:
                self._answered.set()
        await asyncio.to_thread(self._answered.wait, grace)
        for front in self._fronts:
            front.close()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _serve(self, front: NativeGrpcFront) -> None:
        while (events := front.recv_batch(_BATCH)) is not None:
            for kind, call_id, method, payload, _ in events:
                if kind != EVENT_CALL:
                    with self._lock:
                        self._watchers.discard((front, call_id))
                elif method == _CHECK:
                    self._check(front, call_id, payload or b"")
                else:
                    self._tell_health(front, call_id, payload or b"", is_watching=method == _WATCH)

    def _check(self, front: NativeGrpcFront, call_id: int, body: bytes) -> None:
        flow = self._servicer.check_flow(body)
        try:
            wait = next(flow)
        except StopIteration as done:
            front.respond(call_id, done.value)
        except BaseException as error:  # noqa: BLE001 - the thread must live, and an answer is owed
            front.respond(call_id, self._servicer.unforeseen(error))
        else:
            with self._lock:
                self._waiting += 1
            start(flow, partial(self._answer, front, call_id), waiting=wait)

    def _answer(self, front: NativeGrpcFront, call_id: int, answer: bytes | None, error: Exception | None) -> None:
        front.respond(call_id, answer if answer is not None else self._servicer.unforeseen(error or RuntimeError()))
        with self._lock:
            self._waiting -= 1
            if self._is_stopping and not self._waiting:
                self._answered.set()

    def _tell_health(self, front: NativeGrpcFront, call_id: int, body: bytes, *, is_watching: bool) -> None:
        try:
            is_known = health_pb2.HealthCheckRequest.FromString(body).service in ("", SERVICE)
        except DecodeError:
            is_known = False
        with self._lock:
            if is_watching:
                # As gRPC's health checking protocol wants it: a service may come to be known later.
                unknown = int(health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
                front.stream_send(call_id, _health(self._status if is_known else unknown))
                if is_known:
                    self._watchers.add((front, call_id))
            elif is_known:
                front.respond(call_id, _health(self._status))
            else:
                front.fail(call_id, _NOT_FOUND, "")

    def _tell_watchers(self) -> None:
        for front, call_id in self._watchers:
            front.stream_send(call_id, _health(self._status))


def _health(status: int) -> bytes:
    response = health_pb2.HealthCheckResponse(status=status)
    return response.SerializeToString()
