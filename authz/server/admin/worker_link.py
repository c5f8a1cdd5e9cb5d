"""What the supervisor and a worker tell each other for the page: lines of JSON over a pair of sockets.

A second link beside that of :mod:`authz.server.workers.worker`: answers are long,
and a worker that decides must not wait for a supervisor that does not read.
No other process can connect to a pair of sockets, so the link needs no secret.

The first line has the orders in force. The worker carries them out before it
listens: it must refuse every caller that its predecessor refused.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

from authz.runtime import telemetry
from authz.server.admin.backend import Json, Order, Question, Source
from authz.server.admin.shapes import makes_sense
from authz.server.admin.slices import encoded

_MAX_LINE = 8 * 1024 * 1024
_MAX_UNREAD = 64 * 1024
# Questions without an answer; a worker that has so many gets no further ones, only orders.
_MAX_UNANSWERED = 100
# How long a worker may live on after it has closed its link, as it does at its end.
_END_SECONDS = 5.0
# The first message of a worker that has carried out the orders; no question has this number.
_READY: Json = {"number": -1, "answer": None}


class WorkerLink:
    """The supervisor's end.

    Args:
        number: the number of the worker.
        reader: where its messages come from.
        writer: where questions and orders go.
        closed: is called when the link has ended.
        patience: seconds that an answer may take.

    Attributes:
        is_ready: whether the worker has carried out the orders in force, and answers.
        is_broken: whether it has sent what is not understood, which ends the link.

    """

    def __init__(
        self,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        closed: Callable[["WorkerLink"], object],
        *,
        patience: float,
    ) -> None:
        self.number = number
        self.is_ready = self.is_broken = False
        self._reader, self._writer, self._closed = reader, writer, closed
        self._patience = patience
        self._numbers = itertools.count()
        # By the number of the question; ``None`` if the page does not wait for the answer any more.
        self._asked: dict[int, asyncio.Future[Json | None] | None] = {}
        self._listening = asyncio.create_task(self._listen())

    def tell(self, orders: list[Order]) -> None:
        """Tell the worker the orders in force; this is the first message."""
        self._write({"orders": orders})

    async def ask(self, what: str, *arguments: Any) -> Json | None:
        """Return its answer, or ``None`` if none comes in time; an order still reaches the worker then."""
        if not self.is_ready:
            # It loads for a second or two; the page does not wait for that.
            self._question(what, arguments)
            return None
        if what != "order" and self._is_behind():
            return None
        number = self._question(what, arguments)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._patience):
                said = await answer
        except (TimeoutError, ConnectionError):
            if number in self._asked:
                self._asked[number] = None
            return None
        return said if said is not None and makes_sense(what, said) else None

    async def lost(self) -> None:
        """Return when no order can reach the worker any more, and it has had time to end."""
        await asyncio.wait([self._listening])
        if not self.is_broken:
            await asyncio.sleep(_END_SECONDS)

    async def close(self) -> None:
        """End it."""
        self._listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listening

    def _question(self, what: str, arguments: tuple[Any, ...]) -> int:
        number = next(self._numbers)
        self._asked[number] = None
        self._write({"number": number, "what": what, "arguments": arguments})
        return number

    def _write(self, line: Json) -> None:
        _write(self._writer, line)

    def _is_behind(self) -> bool:
        # It is stopped or hangs: questions that it never answers must not pile up.
        unread = self._writer.transport.get_write_buffer_size()
        return unread > _MAX_UNREAD or len(self._asked) >= _MAX_UNANSWERED

    async def _listen(self) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                async for line in self._reader:
                    self._hear(line)
        except (ValueError, RecursionError):
            # None of its messages can be believed any more, nor that it carries out orders.
            self.is_broken = True
            telemetry.event(telemetry.ERROR, "worker_unintelligible", worker=self.number)
        finally:
            for answer in self._asked.values():
                if answer is not None and not answer.done():
                    answer.set_exception(ConnectionResetError())
            self._asked.clear()
            self._closed(self)
            # The worker will not read what is still unsent.
            self._writer.transport.abort()

    def _hear(self, line: bytes) -> None:
        """Take in one line.

        Raises:
            ValueError: it is no answer to a question that was asked.

        """
        said = json.loads(line)
        number, told = (said.get("number"), said.get("answer")) if isinstance(said, dict) else (None, None)
        if said == _READY and not self.is_ready:
            self.is_ready = True
        elif isinstance(number, int) and number in self._asked and isinstance(told, dict | None):
            answer = self._asked.pop(number)
            if answer is not None and not answer.done():
                answer.set_result(told)
        else:
            raise ValueError


async def link_to_worker(
    number: int, ours: socket.socket, closed: Callable[[WorkerLink], object], *, patience: float
) -> WorkerLink:
    """Return the supervisor's end of a link, over its socket of a pair."""
    reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_MAX_LINE)
    return WorkerLink(number, reader, writer, closed, patience=patience)


@contextlib.asynccontextmanager
async def answering_supervisor(its: socket.socket, source: Source) -> AsyncIterator[None]:
    """Carry out the orders in force, then answer the supervisor until the end of the block.

    Args:
        its: the worker's socket of the pair.
        source: carries out orders, and answers.

    Raises:
        ConnectionError: the supervisor has ended, so the orders in force are unknown.

    """
    reader, writer = await asyncio.open_unix_connection(sock=its, limit=_MAX_LINE)
    try:
        first = await reader.readline()
        if not first.endswith(b"\n"):
            raise ConnectionResetError
        for verb, name in json.loads(first)["orders"]:
            await source.order(Order(verb, name))
        _write(writer, _READY)
        answering = asyncio.create_task(_answer_on(reader, writer, source))
        try:
            yield
        finally:
            answering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answering
    finally:
        await _close(writer)


async def _answer_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: Source) -> None:
    with contextlib.suppress(ConnectionError, ValueError):
        async for line in reader:
            asked, answer = json.loads(line), None
            try:
                answer = await _answer(source, asked["what"], asked["arguments"])
            except Exception as error:  # noqa: BLE001 - the next question may succeed
                telemetry.unforeseen("admin", error)
            # On another thread: the answer may be long.
            said = await asyncio.to_thread(_answer_line, asked["number"], answer)
            if len(said) > _MAX_LINE:
                # Too long a line would end the link, and so this worker.
                said = _line({"number": asked["number"], "answer": None})
            writer.write(said)
            await writer.drain()
    # A worker that no order can reach must not go on: its successor will be told the orders in force.
    os.kill(os.getpid(), signal.SIGTERM)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    # The supervisor has ended, and no longer reads.
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def _write(writer: asyncio.StreamWriter, line: Json) -> None:
    writer.write(_line(line))


def _answer_line(number: int, answer: Json | None) -> bytes:
    written = b"null" if answer is None else encoded(answer)
    return b'{"number":%d,"answer":%s}\n' % (number, written)


def _line(said: Json) -> bytes:
    return json.dumps(said).encode() + b"\n"


async def _answer(source: Source, what: str, arguments: list[Any]) -> Json:
    match what:
        case "decisions":
            return await source.decisions()
        case "overview":
            return await source.overview()
        case "policy":
            return await source.policy()
        case "explain":
            method, token, organization, client, scopes = arguments[0]
            return await source.explain(Question(method, token, organization, client, tuple(scopes)))
        case _:
            return await source.order(Order(*arguments[0]))
