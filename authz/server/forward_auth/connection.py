"""One connection of a proxy that asks over HTTP/1.1: its questions in turn, each answered before the next is read."""

import asyncio
from http import HTTPStatus
from typing import Protocol

import h11

from authz.runtime.flow import Flow, Wait
from authz.server.forward_auth.check import Answer, ForwardAuth

MAX_HEAD_BYTES = 64 * 1024
"""Of one question: more than nginx (32 KiB) and Envoy (60 KiB) let through by default."""

MAX_LINES = 256
"""Of one question. They are counted before anything is parsed: each takes microseconds. Envoy lets 100 headers pass."""

HEAD_SECONDS = 10.0
"""From the first byte of a question to its last, which proxies send at once; and for an answer to be read."""

IDLE_SECONDS = 600.0
"""Between two questions. Longer than proxies keep a connection that they do not use (nginx 60 s, Traefik 90 s, Caddy
120 s), so that none asks over a connection that is being closed."""

_LINGER_SECONDS = 2.0

_REASONS = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}
_CLOSE = (b"connection", b"close")


class Owner(Protocol):
    """What a connection asks and tells its server."""

    @property
    def is_ending(self) -> bool:
        """Whether connections are to close after their next answer."""

    def opened(self, connection: "Connection", /) -> None:
        """Note that it has been opened."""

    def used(self, connection: "Connection", /) -> None:
        """Note that it has had an answer."""

    def closed(self, connection: "Connection", /) -> None:
        """Note that it has been closed."""


class Connection(asyncio.Protocol):
    """One connection.

    Args:
        check: answers questions.
        owner: the server.

    Attributes:
        waiting: the task of a question whose answer has to wait.

    """

    def __init__(self, check: ForwardAuth, owner: Owner) -> None:
        self._check, self._owner = check, owner
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.SERVER, MAX_HEAD_BYTES)
        self._lines = 0
        self._has_begun = self._is_over = self._is_full = False
        self._timer: asyncio.TimerHandle | None = None
        self.waiting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See :class:`asyncio.Protocol`."""
        self._transport = transport
        self._owner.opened(self)
        self._expect(IDLE_SECONDS)

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        if not self._is_over:
            self._lines += data.count(b"\n")
            self._http.receive_data(data)
            self._go_on()

    def eof_received(self) -> bool:
        """See :class:`asyncio.Protocol`."""
        # A proxy that sends no more may still wait for an answer.
        is_needed, self._is_over = self.waiting is not None, True
        return is_needed

    def pause_writing(self) -> None:
        """See :class:`asyncio.Protocol`."""
        self._is_full = True
        self._expect(HEAD_SECONDS)

    def resume_writing(self) -> None:
        """See :class:`asyncio.Protocol`."""
        self._is_full = False
        self._expect(IDLE_SECONDS)
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        """See :class:`asyncio.Protocol`."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        if self.waiting is not None:
            # The proxy has given up.
            self.waiting.cancel()
        self._owner.closed(self)

    def end(self) -> None:
        """Close the connection; one whose question waits is closed after the answer."""
        self._is_over = True
        if self.waiting is None:
            self._transport.close()

    def abort(self) -> None:
        """Close it at once."""
        self._transport.abort()

    def _go_on(self) -> None:
        """Answer the questions that are there, as long as answers are read and none has to wait."""
        while not (self._is_over or self._is_full or self.waiting):
            try:
                question = self._next()
            except h11.RemoteProtocolError:
                self._answer(self._check.unreadable(), is_last=True)
                return
            if question is None:
                return
            self._ask(*question)

    def _next(self) -> tuple[h11.Request, bool] | None:
        """Return the next question, if all of it is there, and whether it is the last one of the connection.

        Raises:
            h11.RemoteProtocolError: it is none, or too large.

        """
        http = self._http
        if self._lines > MAX_LINES:
            raise h11.RemoteProtocolError("too many lines")
        event = http.next_event()
        if not isinstance(event, h11.Request):
            if not self._has_begun and http.trailing_data[0]:
                self._has_begun = True
                self._expect(HEAD_SECONDS)
            return None
        self._has_begun, self._lines = False, http.trailing_data[0].count(b"\n")
        # Without a body nothing follows. None is read: it is not part of the question, and nginx announces one that it
        # does not send unless told otherwise.
        return event, not isinstance(http.next_event(), h11.EndOfMessage) or event.method == b"CONNECT"

    def _ask(self, question: h11.Request, is_last: bool) -> None:  # noqa: FBT001 - as _next returns it
        method, target = question.method.decode("ascii"), question.target.decode("latin-1")
        try:
            begun = self._check.begin(method, target, list(question.headers))
        except (Exception, GeneratorExit) as error:  # noqa: BLE001 - see ForwardAuth.unforeseen
            begun = self._check.unforeseen(error)
        if isinstance(begun, Answer):
            self._answer(begun, is_last=is_last, has_no_body=method == "HEAD")
            return
        self._transport.pause_reading()
        self._expect(None)
        self.waiting = self._loop.create_task(self._wait(*begun, is_last=is_last, has_no_body=method == "HEAD"))

    async def _wait(self, flow: Flow[Answer], wait: Wait, *, is_last: bool, has_no_body: bool) -> None:
        try:
            answer = await self._check.waiting.finish(flow, wait)
        except (Exception, GeneratorExit) as error:  # noqa: BLE001 - as above
            answer = self._check.unforeseen(error)
        self.waiting = None
        self._answer(answer, is_last=is_last, has_no_body=has_no_body)
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self._go_on()

    def _answer(self, answer: Answer, *, is_last: bool, has_no_body: bool = False) -> None:
        is_last = is_last or self._is_over or self._owner.is_ending
        status, headers, body = answer
        more = [(b"content-length", b"%d" % len(body)), *([_CLOSE] if is_last else [])]
        http = self._http
        sent = http.send(h11.Response(status_code=status, headers=[*headers, *more], reason=_REASONS[status])) or b""
        if body and not has_no_body:
            sent += http.send(h11.Data(data=body)) or b""
        self._transport.write(sent + (http.send(h11.EndOfMessage()) or b""))
        self._owner.used(self)
        if is_last or http.our_state is not h11.DONE or http.their_state is not h11.DONE:
            self._linger()
            return
        http.start_next_cycle()
        self._expect(IDLE_SECONDS)

    def _linger(self) -> None:
        """Close the connection once the answer has been read: what is still being sent would reset it before."""
        self._is_over = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._expect(_LINGER_SECONDS)
        else:
            self._transport.close()

    def _expect(self, seconds: float | None) -> None:
        """Close the connection after that time, unless something else is expected meanwhile."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self._loop.call_later(seconds, self.abort)
