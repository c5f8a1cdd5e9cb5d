"""What operators ask by HTTP: ``/healthz``, ``/readyz`` and ``/metrics``, in the event loop of the server itself."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from authz import telemetry
from authz.envoy.config import check_address
from authz.errors import ConfigError

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Of an orchestrator and a few scrapers; more answer 503, so that nobody takes the memory of whoever decides.
_MAX_CONNECTIONS = 64
_MAX_HEAD_BYTES = 8192
_IDLE_SECONDS = 15
_END_SECONDS = 1


@contextlib.asynccontextmanager
async def answering(
    address: str, unready: Callable[[], str], metrics: Callable[[], bytes], is_stale: Callable[[], bool] = lambda: False
) -> AsyncIterator[None]:
    """Answer until the end of the block.

    Args:
        address: ``HOST:PORT``; port 0 is any free one.
        unready: says why checks cannot be decided; an empty text if they can.
        metrics: returns what ``/metrics`` answers; called on a thread.
        is_stale: says whether the last reload of a policy failed, which changes what is said and not the status:
            the policy before it is in force.

    Raises:
        ConfigError: the address cannot be bound.

    """
    listener = _bind(address)
    server = _Server(app(unready, metrics, is_stale))
    serving = asyncio.create_task(server.serve([listener]))
    host, port = listener.getsockname()[:2]
    telemetry.event(telemetry.INFO, "probes", address=f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def app(
    unready: Callable[[], str], metrics: Callable[[], bytes], is_stale: Callable[[], bool] = lambda: False
) -> Starlette:
    """Return the ASGI application; see :func:`answering`."""

    def state(**state: object) -> dict[str, object]:
        return {**state, "policy": "last reload failed"} if is_stale() else state

    async def healthz(_request: Request) -> Response:
        # It needs the event loop, which is what can hang.
        return JSONResponse(state(alive=True))

    async def readyz(_request: Request) -> Response:
        reason = unready()
        if reason:
            return JSONResponse(state(ready=False, reason=reason), status_code=503)
        return JSONResponse(state(ready=True))

    async def figures(_request: Request) -> Response:
        # It takes milliseconds, in which nobody would be answered.
        return Response(await asyncio.to_thread(metrics), media_type=_CONTENT_TYPE)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", figures)])


class _Server(uvicorn.Server):
    def __init__(self, application: Starlette) -> None:
        config = uvicorn.Config(
            application,
            http="h11",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            # It warns of every request that does not parse, which anybody can send.
            log_level="critical",
            server_header=False,
            limit_concurrency=_MAX_CONNECTIONS,
            h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=_END_SECONDS,
        )
        super().__init__(config)

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        # Signals are for the whole process, so not for this to take.
        return contextlib.nullcontext()


def _bind(address: str) -> socket.socket:
    check_address("http_listen", address)
    host, _, port = address.rpartition(":")
    try:
        family, _, _, _, bound = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        # With its protocol named, for only then does asyncio turn Nagle's algorithm off.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except (OSError, UnicodeError, ValueError):
        raise ConfigError(
            f"http_listen: {address!a} is not HOST:PORT of this machine, such as 127.0.0.1:9192"
        ) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(bound)
        listener.listen(_MAX_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise ConfigError(f"http_listen: {address!a} cannot be bound ({error.strerror}); choose another") from None
    return listener
