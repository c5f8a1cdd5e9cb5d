"""One WebSocket, which is ended with its token."""

import contextlib
from collections.abc import Awaitable

from authz.asgi.answers import close_websocket, refuse_websocket
from authz.asgi.protocol import App, Message, Receive
from authz.asgi.serving import Serving
from authz.call.principal import Principal
from authz.call.refusal import Refusal
from authz.http.serving import OverError


class WebSocket(Serving):
    """One WebSocket: a stream from its handshake on."""

    _is_accepted = _is_closed = False

    async def run(self, app: App, receive: Receive, principal: Principal) -> None:
        """Have ``app`` serve it, if its organization may have one more stream open."""
        self.principal, self._seconds = principal, self._hearing.seconds
        try:
            await self.open()
        except OverError:
            if self._refusal is not None:
                await self.finish(self._refusal)
            return

        async def receive_on() -> Message:
            message = await receive()
            if self.must_end:
                raise OverError
            return message

        await super().run(app, receive_on, principal)

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message of the application.

        Raises:
            OverError: the WebSocket must end.

        """
        if self.must_end:
            raise OverError
        kind = message["type"]
        if kind == "websocket.accept":
            self._is_accepted = True
            self.tell()
        elif kind in ("websocket.close", "websocket.http.response.start"):
            self._is_closed = True
        return self._send(message)

    async def finish(self, refusal: Refusal) -> None:
        """Close it, or refuse the handshake if the application has not accepted it."""
        if self._is_closed:
            return
        self._is_closed = True
        # The client may have gone.
        with contextlib.suppress(OSError):
            if self._is_accepted:
                await close_websocket(self._send, refusal)
            else:
                await refuse_websocket(self._scope, self._send, refusal)
