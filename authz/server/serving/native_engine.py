"""The authorization server on ``pygrpc-native``, whose HTTP/2 runs in Rust, outside the GIL: a fifth of the CPU time.

Requests come as bytes, in batches, to one thread for each address, which
decides most of them at once. A request that must wait, for keys or for the
issuer's word, is continued by the thread that brings them.
The library has no TLS, so this engine is for a sidecar: loopback and Unix sockets.
"""

import asyncio
import threading
from functools import partial

import grpc
from grpc_health.v1 import health_pb2
from pygrpc_native import EVENT_CALL, STREAM_FULL, STREAM_SENT, NativeGrpcFront

from authz.envoy.check.servicer import SERVICE, AuthorizationServicer
from authz.errors import ConfigError
from authz.runtime.flow import Wait, start
from authz.runtime.network.addresses import Address, parse
from authz.runtime.threads import restarting
from authz.server.serving.bounds import KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS, MAX_CONCURRENT_STREAMS, MAX_METADATA_BYTES

_HEALTH = "/grpc.health.v1.Health"
_METHODS = ((f"/{SERVICE}/Check", False), (f"{_HEALTH}/Check", False), (f"{_HEALTH}/Watch", True))
_CHECK, _HEALTH_CHECK, _WATCH = range(3)

# So few that the first answer does not wait long for the last.
_BATCH = 16
# One thread at a time can decide, because of the GIL; one more for HTTP/2 is enough to keep it busy.
_IO_THREADS = 1
_UNKNOWN, _NOT_FOUND = 2, 5

_NOT_SERVING = int(health_pb2.HealthCheckResponse.NOT_SERVING)
_SERVICE_UNKNOWN = int(health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
_UNTOLD = -1

# After how long a watcher whose buffer is full is told again, at first and at most.
_SOON, _LATER = 0.01, 1.0

# close() drops answers that are not on the wire yet, and the library does not say when they are. A tenth of a second
# without work is a hundred times what that takes.
_TICK, _QUIET_TICKS = 0.02, 5

_JOIN_SECONDS = 1.0

# How often a thread without work counts up: twice as often as it is looked at.
_IDLE_MS = 500


class NativeEngine:
    """Serve ``Check`` and ``grpc.health.v1``; see :class:`authz.server.serving.server.Engine`.

    Args:
        servicer: answers ``Check``.
        reuse_port: whether other processes of this user listen on the same TCP ports.

    """

    def __init__(self, servicer: AuthorizationServicer, *, reuse_port: bool = False) -> None:
        self._servicer = servicer
        self._reuse_port = reuse_port
        self._fronts: list[NativeGrpcFront] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._status = _NOT_SERVING
        self._is_stopping = False
        # The status that each call was told last.
        self._watchers: dict[tuple[NativeGrpcFront, int], int] = {}
        self._reminder: asyncio.TimerHandle | None = None
        # The fronts with a batch that is being decided; each is added and removed by its own thread.
        self._busy: set[NativeGrpcFront] = set()
        # How often the thread of each front has asked for a batch.
        self._rounds: dict[NativeGrpcFront, int] = {}

    @property
    def watchers(self) -> int:
        """How many calls watch the health now."""
        return len(self._watchers)

    @staticmethod
    def check_address(address: Address) -> None:
        """See :class:`authz.server.serving.server.Engine`.

        Raises:
            ConfigError: an address with TLS, or one that other machines can reach.

        """
        if address.kind == "tls":
            raise ConfigError(f"listen: the native engine has no TLS for {address.text!a}; use --engine grpcio")
        if not address.is_local:
            raise ConfigError(
                f"listen: {address.text!a} can be reached by other machines, and the native engine has no TLS; "
                "use a loopback address, unix:PATH, or --engine grpcio"
            )

    def bind(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """See :class:`authz.server.serving.server.Engine`; without ``credentials``, because there is no TLS.

        Raises:
            ConfigError: an address that other machines can reach, or one that cannot be bound.

        """
        if credentials is not None:
            raise ConfigError("listen: the native engine has no TLS; use --engine grpcio")
        self.check_address(parse("listen", address))
        try:
            front = NativeGrpcFront(
                address,
                _METHODS,
                io_threads=_IO_THREADS,
                max_concurrent_streams=MAX_CONCURRENT_STREAMS,
                max_metadata_size=MAX_METADATA_BYTES,
                keepalive_time_ms=KEEPALIVE_MS,
                keepalive_timeout_ms=KEEPALIVE_TIMEOUT_MS,
                reuse_port=self._reuse_port,
            )
        except (OSError, ValueError):
            raise ConfigError(
                f"listen: {address!a} cannot be bound: it is in use or not an address of this machine; choose another "
                "(`authz doctor` says which program has it)"
            ) from None
        self._fronts.append(front)
        return front.bound_port

    def progress(self) -> tuple[int, ...]:
        """See :class:`authz.server.serving.server.Engine`; the counter of a dead thread stands still."""
        return tuple(self._rounds.values())

    async def start(self) -> None:
        """See :class:`authz.server.serving.server.Engine`."""
        self._rounds = dict.fromkeys(self._fronts, 0)
        for front in self._fronts:
            front.start()
            serve = restarting(partial(self._serve, front))
            thread = threading.Thread(target=serve, name="authz-native", daemon=True)
            thread.start()
            self._threads.append(thread)

    async def set_health(self, status: int) -> None:
        """See :class:`authz.server.serving.server.Engine`."""
        with self._lock:
            if self._is_stopping:
                return
            self._status = status
        self._tell_watchers()

    async def stop(self, grace: float) -> None:
        """See :class:`authz.server.serving.server.Engine`."""
        with self._lock:
            self._is_stopping = True
            self._status = _NOT_SERVING
        self._tell_watchers()
        await self._finish(grace)
        if self._reminder is not None:
            self._reminder.cancel()
        for front in self._fronts:
            front.close()
        for thread in self._threads:
            # Not for ever: the process must end even if a rule hangs.
            await asyncio.to_thread(thread.join, _JOIN_SECONDS)

    async def _finish(self, grace: float) -> None:
        """Return when there has been no work for a while, or after ``grace`` seconds."""
        loop = asyncio.get_running_loop()
        end, quiet = loop.time() + grace, 0
        while quiet < _QUIET_TICKS and (left := end - loop.time()) > 0:
            await asyncio.sleep(min(_TICK, left))
            quiet = 0 if self._busy or self._servicer.pending else quiet + 1

    def _serve(self, front: NativeGrpcFront) -> None:
        while (events := front.recv_batch(_BATCH, _IDLE_MS)) is not None:
            self._rounds[front] += 1
            self._busy.add(front)
            answers: list[tuple[int, bytes]] = []
            for kind, call_id, method, payload, _ in events:
                try:
                    if kind != EVENT_CALL:
                        self._forget(front, call_id)
                    elif method == _CHECK:
                        self._check(front, call_id, payload or b"", answers)
                    else:
                        self._tell_health(front, call_id, payload or b"", is_watching=method == _WATCH)
                except BaseException as error:  # noqa: BLE001 - this thread must go on: it answers all calls of this address
                    if method == _CHECK:
                        answers.append((call_id, self._servicer.unforeseen(error)))
                    else:
                        front.fail(call_id, _UNKNOWN, "")
            # All at once: to wake the threads of the library costs as much as a verdict.
            for call_id, answer in answers:
                front.respond(call_id, answer)
            self._busy.discard(front)

    def _check(self, front: NativeGrpcFront, call_id: int, body: bytes, answers: list[tuple[int, bytes]]) -> None:
        begun = self._servicer.begin(body)
        if isinstance(begun, bytes):
            answers.append((call_id, begun))
        else:
            flow, wait = begun
            start(flow, partial(self._answer, front, call_id, wait), waiting=wait)

    def _answer(
        self, front: NativeGrpcFront, call_id: int, wait: Wait, answer: bytes | None, error: BaseException | None
    ) -> None:
        front.respond(call_id, answer if answer is not None else self._servicer.unforeseen(error or RuntimeError()))
        self._servicer.end(wait)

    def _tell_health(self, front: NativeGrpcFront, call_id: int, body: bytes, *, is_watching: bool) -> None:
        is_known = health_pb2.HealthCheckRequest.FromString(body).service in ("", SERVICE)
        with self._lock:
            if is_watching and is_known:
                self._watchers[front, call_id] = _UNTOLD
                self._tell(front, call_id)
            elif is_watching:
                # As gRPC's health checking protocol has it: the service may be registered later.
                front.stream_try_send(call_id, _health(_SERVICE_UNKNOWN))
            elif is_known:
                front.respond(call_id, _health(self._status))
            else:
                front.fail(call_id, _NOT_FOUND, "")

    def _forget(self, front: NativeGrpcFront, call_id: int) -> None:
        with self._lock:
            self._watchers.pop((front, call_id), None)

    def _tell_watchers(self, pause: float = _SOON) -> None:
        """Tell watchers a changed status, and try again later those that do not read; on the event loop."""
        if self._reminder is not None:
            self._reminder.cancel()
            self._reminder = None
        with self._lock:
            told = [self._tell(front, call_id) for front, call_id in self._watchers]
        if not all(told):
            next_pause = min(2 * pause, _LATER)
            self._reminder = asyncio.get_running_loop().call_later(pause, self._tell_watchers, next_pause)

    def _tell(self, front: NativeGrpcFront, call_id: int) -> bool:
        """Tell one watcher, and return whether that is done. Never waits: a watcher may never read."""
        watcher = front, call_id
        if self._watchers[watcher] == self._status:
            return True
        sent = front.stream_try_send(call_id, _health(self._status))
        if sent == STREAM_SENT:
            self._watchers[watcher] = self._status
        return sent != STREAM_FULL


def _health(status: int) -> bytes:
    response = health_pb2.HealthCheckResponse(status=status)
    return response.SerializeToString()
