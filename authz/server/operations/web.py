"""HTTP for operators, in the event loop of the server itself; the callers of the API never use it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from authz.runtime import telemetry
from authz.runtime.network.listening import address_of, bind
from authz.server.operations.connections import TURNS_PER_SECOND, Room, Turns

_MAX_HEAD_BYTES = 8192
_IDLE_SECONDS = 15
_CONNECTION_SECONDS = 30.0
_END_SECONDS = 1


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp,
    address: str,
    *,
    setting: str,
    event: str,
    connection_seconds: float = _CONNECTION_SECONDS,
    turns_per_second: float = TURNS_PER_SECOND,
) -> AsyncIterator[str]:
    """Serve ``app`` until the end of the block; yield the address in force.

    Args:
        app: the application.
        address: ``HOST:PORT``; port 0 is any free one.
        setting: what to call the address in an error.
        event: what to call it in the log.
        connection_seconds: how long a connection lasts at most; a request that is being answered has as long again.
        turns_per_second: how many requests, or pieces of a long one, are handled in a second.

    Raises:
        ConfigError: the address cannot be bound.

    """
    listener = bind(address, setting)
    server = _Server(app, connection_seconds, Turns(turns_per_second))
    running = asyncio.create_task(server.serve([listener]))
    bound = address_of(listener)
    telemetry.event(telemetry.INFO, event, address=bound)
    try:
        yield bound
    finally:
        server.should_exit = True
        await running


class _Connection(H11Protocol):
    """A connection with a time limit: uvicorn waits for ever for a request that does not come, or comes in drops."""

    def __init__(self, seconds: float, room: Room, turns: Turns, **more: Any) -> None:
        super().__init__(**more)
        self._room, self._turns = room, turns
        self.peer = ""
        self._ends = (
            self.loop.call_later(seconds, self.shutdown),
            # For a client that does not read its answer, or does not send all that it has announced.
            self.loop.call_later(2 * seconds, self.abort),
        )

    @property
    def is_busy(self) -> bool:
        """See :class:`authz.server.operations.connections.Connection`."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    def abort(self) -> None:
        """See :class:`authz.server.operations.connections.Connection`."""
        self.transport.abort()

    def go_on(self) -> None:
        """See :class:`authz.server.operations.connections.Connection`."""
        if not self.transport.is_closing():
            self.flow.resume_reading()
            super().handle_events()

    def handle_events(self) -> None:
        """Handle what was sent if it is this connection's turn, and else stop reading until then."""
        if self._turns.take(self):
            super().handle_events()
        else:
            self.flow.pause_reading()

    def on_response_complete(self) -> None:
        self._room.answered(self)
        super().on_response_complete()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.peer = self.client[0] if self.client else ""
        self._room.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._room.leave(self)
        self._turns.forget(self)
        for end in self._ends:
            end.cancel()
        super().connection_lost(exc)


class _Server(uvicorn.Server):
    def __init__(self, application: ASGIApp, connection_seconds: float, turns: Turns) -> None:
        config = uvicorn.Config(
            application,
            http=partial(_Connection, connection_seconds, Room(), turns),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            # uvicorn warns of every request that cannot be parsed, and any client can send those.
            log_level="critical",
            server_header=False,
            # Any client can write an address into X-Forwarded-For.
            proxy_headers=False,
            h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=_END_SECONDS,
        )
        super().__init__(config)

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        # The process handles signals as a whole.
        return contextlib.nullcontext()
