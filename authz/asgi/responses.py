"""The response to one request, which is ended with its token if it is streamed."""

from collections.abc import Awaitable

from authz.asgi.answers import refuse
from authz.asgi.protocol import Message
from authz.asgi.serving import Serving
from authz.call.refusal import Refusal
from authz.http.forms import form_of
from authz.http.serving import OverError

# RFC 9110 section 6.4.1: they have no body.
_EMPTY = (204, 304)
_LENGTH = b"content-length"


class Response(Serving):
    """The response to one request.

    It is a stream if its length is not told, or if its body comes in several parts. Only then the judge hears of it.
    """

    _has_begun = False

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message of the application.

        Raises:
            OverError: the response must end.

        """
        if self.must_end:
            raise OverError
        kind = message["type"]
        if kind == "http.response.start":
            if self._may_last(message):
                return self._begin(message)
            if not self._is_told:
                self.tell()
            self._has_begun = True
        elif kind == "http.response.body" and bool(message.get("more_body")) is not self._is_open:
            return self._complete(message) if self._is_open else self._go_on(message)
        # No coroutine of ours: most responses are whole.
        return self._send(message)

    async def finish(self, refusal: Refusal) -> None:
        """Answer with the refusal; a response that has begun breaks off, so that no client takes it for complete."""
        if not self._has_begun:
            self._has_begun = True
            await refuse(self._send, refusal, form_of(self._headers.kinds))

    async def _begin(self, message: Message) -> None:
        try:
            await self.open()
        except OverError:
            # At once: the application may be in no hurry to return.
            if self._refusal is not None:
                await self.finish(self._refusal)
            raise
        self.tell()
        self._has_begun = True
        await self._send(message)

    async def _go_on(self, message: Message) -> None:
        await self.open()
        await self._send(message)

    async def _complete(self, message: Message) -> None:
        await self._send(message)
        # What the application does afterwards is no part of the response, and goes on.
        self.leave()

    def _may_last(self, message: Message) -> bool:
        if message["status"] in _EMPTY or self._hearing.call.verb == "HEAD":
            return False
        return _LENGTH not in dict(message.get("headers", ()))
