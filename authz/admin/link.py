"""What the supervisor and a worker tell each other for the page: lines of JSON over a pair of sockets.

Not the link that :mod:`authz.envoy.workers.worker` has: answers are long, and whoever
decides must not wait for a supervisor that does not read. Nobody else can
connect to a pair of sockets, so there is nothing to guard.

The first line is what is in force. The worker obeys it before it listens: one
that is started again must not let in whom its predecessor kept out.
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

from authz import telemetry
from authz.admin.source import Json, Order, Question, Source

_MAX_LINE = 8 * 1024 * 1024
_MAX_UNREAD = 64 * 1024
# Said by a worker that has obeyed; no question has this number.
_READY: Json = {"number": -1, "answer": None}


class WorkerLink:
    """The supervisor's end.

    Args:
        number: which worker it leads to.
        reader: what it says.
        writer: what it is told.
        closed: is called when it has ended.
        patience: seconds that an answer may take.

    Attributes:
        is_ready: whether it has obeyed what was in force, and answers.

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
        self.is_ready = False
        self._reader, self._writer, self._closed = reader, writer, closed
        self._patience = patience
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Json]] = {}
        self._listening = asyncio.create_task(self._listen())

    def tell(self, orders: list[Order]) -> None:
        """Tell it what is in force; the first thing that it hears."""
        self._write({"orders": orders})

    async def ask(self, what: str, *arguments: Any) -> Json | None:
        """Return its answer, or ``None`` if it gives none in time; it will still hear what it was asked."""
        if not self.is_ready:
            # It loads for a second or two, for which nobody has to wait.
            self._write({"number": -1, "what": what, "arguments": arguments})
            return None
        if what != "order" and self._writer.transport.get_write_buffer_size() > _MAX_UNREAD:
            # It is stopped, and questions that it never reads must not pile up.
            return None
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._write({"number": number, "what": what, "arguments": arguments})
        try:
            async with asyncio.timeout(self._patience):
                said: Json | None = await answer
                return said
        except (TimeoutError, ConnectionError):
            return None
        finally:
            del self._waiting[number]

    async def close(self) -> None:
        """End it."""
        self._listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listening

    def _write(self, line: Json) -> None:
        _write(self._writer, line)

    async def _listen(self) -> None:
        try:
            with contextlib.suppress(ConnectionError, ValueError):
                async for line in self._reader:
                    said = json.loads(line)
                    self.is_ready = True
                    answer = self._waiting.get(said["number"])
                    if answer is not None and not answer.done():
                        answer.set_result(said["answer"])
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(ConnectionResetError())
            self._closed(self)
            await _close(self._writer)


async def link_to_worker(
    number: int, ours: socket.socket, closed: Callable[[WorkerLink], object], *, patience: float
) -> WorkerLink:
    """Return the supervisor's end of a link, over its socket of a pair."""
    reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_MAX_LINE)
    return WorkerLink(number, reader, writer, closed, patience=patience)


@contextlib.asynccontextmanager
async def answering_supervisor(its: socket.socket, source: Source) -> AsyncIterator[None]:
    """Obey what is in force, then answer the supervisor until the end of the block.

    Args:
        its: the worker's socket of the pair.
        source: what obeys and answers.

    Raises:
        ConnectionError: the supervisor is no more, so nobody can say what is in force.

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
            except Exception as error:  # noqa: BLE001 - the next question may fare better
                telemetry.unforeseen("admin", error)
            said = _line({"number": asked["number"], "answer": answer})
            if len(said) > _MAX_LINE:
                # It would end the link, and with that this worker.
                said = _line({"number": asked["number"], "answer": None})
            writer.write(said)
            await writer.drain()
    # Whom no order can reach any more must not go on: its successor will hear what is in force.
    os.kill(os.getpid(), signal.SIGTERM)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    # What was not written yet is for nobody any more.
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def _write(writer: asyncio.StreamWriter, line: Json) -> None:
    writer.write(_line(line))


def _line(said: Json) -> bytes:
    return json.dumps(said).encode() + b"\n"


async def _answer(source: Source, what: str, arguments: list[Any]) -> Json:
    match what:
        case "decisions":
            return await source.decisions(arguments[0])
        case "overview":
            return await source.overview()
        case "policy":
            return await source.policy()
        case "explain":
            method, token, organization, client, scopes = arguments[0]
            return await source.explain(Question(method, token, organization, client, tuple(scopes)))
        case _:
            return await source.order(Order(*arguments[0]))
