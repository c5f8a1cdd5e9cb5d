"""The link between the supervisor and one worker: orders of the operator, and the questions of the admin page.

Both ends send lines of JSON over a pair of sockets that no other process can connect to. A worker that has loaded says
so, and is sent all orders that are known, page by page; then it may listen. From its first word on it is sent every new
order too, and it answers when it has carried it out. In which order they come does not matter.

A worker that answers with nonsense, or not at all, obeys no orders: it is parted with, and killed.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from authz.judge.orders.operator import Operator
from authz.judge.orders.order import Order
from authz.judge.orders.standing import Doubt
from authz.judge.orders.tokens import member
from authz.runtime import telemetry

Json = dict[str, Any]

Answer = Callable[[str, list[Any]], Awaitable[bytes]]
"""Answers a question, by its name and its arguments, with a JSON object."""

ORDER_SECONDS = 5.0
"""How long a worker may take to carry out a page of orders; then it is killed."""

_MAX_LINE = 8 * 1024 * 1024
_MAX_UNREAD = 64 * 1024
# Orders or tokens in one line, and how long it may get: one is carried out in a few milliseconds.
_PAGE, _PAGE_BYTES = 500, 256 * 1024
# Questions without an answer; a worker that has so many gets no further ones, only orders.
_MAX_UNANSWERED = 100
# How long a worker may live on after it has closed its link, as it does at its end.
_END_SECONDS = 5.0
_TICKS = 10
# The first message of a worker; no question has this number.
_HELLO: Json = {"number": -1, "answer": None}
_GO: Json = {"go": True}
_ORDERS, _DOUBT, _NAMES = "carry_out", "doubt", "names"
# How many names of applications a worker is told at a time: at most some 100 KiB.
_NAMES_AT_ONCE = 100


class WorkerLink:
    """The supervisor's end.

    Args:
        number: the number of the worker.
        reader: where its messages come from.
        writer: where questions and orders go.
        snapshot: returns all orders that are known, as pages; it is called on a thread.
        doubt: returns whether they may not be all.
        names: returns what applications are called, by client id.
        closed: is called when the link has ended.
        patience: seconds that an answer may take.

    Attributes:
        is_ready: whether the worker has carried out all orders, and answers.
        is_broken: whether it is parted with, because it has sent what is not understood, or has not obeyed.
        ended: is set when its process has ended.
        naming: tells it what applications are called.

    """

    def __init__(
        self,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        snapshot: Callable[[], Sequence[bytes]],
        doubt: Callable[[], Doubt],
        names: Callable[[], Mapping[str, str]],
        closed: Callable[["WorkerLink"], object],
        patience: float,
    ) -> None:
        self.number = number
        self.is_ready = self.is_broken = False
        self.ended = asyncio.Event()
        self._reader, self._writer, self._closed = reader, writer, closed
        self._snapshot, self._doubt, self._names = snapshot, doubt, names
        self._patience = patience
        self._numbers = itertools.count()
        # By the number of the question; ``None`` if the page does not wait for the answer any more.
        self._asked: dict[int, asyncio.Future[Json | None] | None] = {}
        self._listening = asyncio.create_task(self._listen())
        self._feeding: asyncio.Task[None] | None = None
        self.naming = _Naming(self._question, lambda: self.is_ready)

    async def ask(self, what: str, *arguments: Any) -> Json | None:
        """Return its answer, or ``None`` if none comes in time."""
        if not self.is_ready or self._is_behind():
            return None
        number, answer = self._question(what, json.dumps(arguments).encode())
        try:
            async with asyncio.timeout(self._patience):
                return await answer
        except (TimeoutError, ConnectionError):
            if number in self._asked:
                self._asked[number] = None
            return None

    async def carry_out(self, pages: Sequence[bytes]) -> None:
        """Return when it has carried out the orders, or has been killed because it does not.

        One that is not ready hears of them in time: it may not listen before.
        """
        for page in pages:
            if self._feeding is None:
                # They will be among those that are sent when it can hear.
                return
            _, answer = self._question(_ORDERS, page)
            if not self.is_ready:
                answer.add_done_callback(self._check_obeyed)
            elif not await self._has_obeyed(answer):
                await self._part()
                return

    def tell_doubt(self) -> None:
        """Tell it whether the orders are known; one that is starting is told before it may listen."""
        if self.is_ready:
            self._question(_DOUBT, json.dumps(self._doubt()).encode())[1].add_done_callback(self._check_obeyed)

    async def lost(self) -> None:
        """Return when no order can reach the worker any more, and it has had time to end."""
        await asyncio.wait([self._listening])
        if not self.is_broken:
            await asyncio.sleep(_END_SECONDS)

    async def close(self) -> None:
        """End it."""
        tasks = [task for task in (self._listening, self._feeding, self.naming.task) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _has_obeyed(self, answer: asyncio.Future[Json | None]) -> bool:
        # In ticks: while the supervisor itself stands still, no worker counts as late.
        for _ in range(_TICKS):
            done, _ = await asyncio.wait([answer], timeout=ORDER_SECONDS / _TICKS)
            if done:
                return answer.exception() is None and answer.result() == {}
        return False

    def _check_obeyed(self, answer: asyncio.Future[Json | None]) -> None:
        if answer.exception() is None and answer.result() != {}:
            self._break()

    def _break(self) -> None:
        if not self._listening.done():
            self.is_broken = True
            telemetry.event(telemetry.ERROR, "worker_disobedient", worker=self.number)
            self._listening.cancel()

    async def _part(self) -> None:
        """Have the worker killed, and wait for its end."""
        self._break()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS + ORDER_SECONDS):
                await self.ended.wait()

    async def _feed(self) -> None:
        """Send all orders, and then let the worker go on."""
        for page in await asyncio.to_thread(self._snapshot):
            _, answer = self._question(_ORDERS, page)
            # As long as it takes: one that does not start is killed by its supervisor.
            with contextlib.suppress(ConnectionError):
                if await answer == {}:
                    continue
            self._break()
            return
        # Without an await in between: what is ordered now it hears before, or its answer is waited for.
        self.is_ready = True
        self.tell_doubt()
        self._write(json.dumps(_GO).encode())
        self.naming.tell(self._names())

    def _question(self, what: str, arguments: bytes) -> tuple[int, asyncio.Future[Json | None]]:
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self._write(b'{"number":%d,"what":"%s","arguments":%s}' % (number, what.encode(), arguments))
        return number, answer

    def _write(self, line: bytes) -> None:
        self._writer.write(line + b"\n")

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
            self.is_ready = False
            for answer in self._asked.values():
                if answer is not None and not answer.done():
                    answer.set_exception(ConnectionResetError())
                    # Whether or not anyone waits for it.
                    answer.exception()
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
        if said == _HELLO and self._feeding is None:
            self._feeding = asyncio.create_task(self._feed())
        elif isinstance(number, int) and number in self._asked and isinstance(told, dict | None):
            answer = self._asked.pop(number)
            if answer is not None and not answer.done():
                answer.set_result(told)
        else:
            raise ValueError


class _Naming:
    """Tells a worker what applications are called: few at a time, so that an order never waits for more of them.

    Args:
        ask: asks it something, and returns what brings the answer.
        is_ready: says whether it answers.

    """

    def __init__(
        self, ask: Callable[[str, bytes], tuple[int, asyncio.Future[Json | None]]], is_ready: Callable[[], bool]
    ) -> None:
        self._ask, self._is_ready = ask, is_ready
        # What it has not been told yet.
        self._left: dict[str, str] = {}
        self.task: asyncio.Task[None] | None = None

    def tell(self, names: Mapping[str, str]) -> None:
        """Tell it these as well."""
        self._left |= names
        if self._left and (self.task is None or self.task.done()):
            self.task = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        with contextlib.suppress(ConnectionError):
            while self._left and self._is_ready():
                some = range(min(len(self._left), _NAMES_AT_ONCE))
                names = dict(self._left.popitem() for _ in some)
                await self._ask(_NAMES, json.dumps([names]).encode())[1]


async def link_to_worker(
    number: int,
    ours: socket.socket,
    *,
    snapshot: Callable[[], Sequence[bytes]],
    doubt: Callable[[], Doubt],
    names: Callable[[], Mapping[str, str]],
    closed: Callable[[WorkerLink], object],
    patience: float,
) -> WorkerLink:
    """Return the supervisor's end of a link, over its socket of a pair."""
    reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_MAX_LINE)
    return WorkerLink(
        number, reader, writer, snapshot=snapshot, doubt=doubt, names=names, closed=closed, patience=patience
    )


def pages_of(orders: Sequence[Order], tokens: Sequence[tuple[str, float]] = ()) -> list[bytes]:
    """Return orders, and tokens that are listed as revoked, as lines of a bounded length."""
    listed = [*((member(order.id, order.issuer), order.until or 0) for order in orders if order.is_listing), *tokens]
    others = ((order.at, order.text().decode()) for order in orders if not order.is_listing)
    # A name is short, and a million are told: they are written many at a time, and not measured.
    tokens_told = (json.dumps(listed[first : first + _PAGE]).encode() for first in range(0, len(listed), _PAGE))
    return [*(b"[%s,[]]" % page for page in _cut(others)), *(b"[[],%s]" % page for page in tokens_told)]


def _cut(items: Iterable[object]) -> Iterator[bytes]:
    page, size = [], 0
    for item in items:
        page.append(json.dumps(item).encode())
        size += len(page[-1])
        if len(page) >= _PAGE or size >= _PAGE_BYTES:
            yield b"[%s]" % b",".join(page)
            page, size = [], 0
    if page:
        yield b"[%s]" % b",".join(page)


@contextlib.asynccontextmanager
async def answering_supervisor(its: socket.socket, operator: Operator, answer: Answer) -> AsyncIterator[None]:
    """Carry out all orders that are known, then answer the supervisor until the end of the block.

    Args:
        its: the worker's socket of the pair.
        operator: carries out orders.
        answer: answers everything else.

    Raises:
        ConnectionError: the supervisor has ended, so the orders are unknown.

    """
    reader, writer = await asyncio.open_unix_connection(sock=its, limit=_MAX_LINE)
    lines = aiter(reader)
    try:
        writer.write(json.dumps(_HELLO).encode() + b"\n")
        while (said := await _next(lines)) != _GO:
            await _reply(writer, operator, answer, said)
        answering = asyncio.create_task(_answer_on(lines, writer, operator, answer))
        try:
            yield
        finally:
            answering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answering
    finally:
        await _close(writer)


async def _next(lines: AsyncIterator[bytes]) -> Json:
    async for line in lines:
        if line.endswith(b"\n"):
            said: Json = json.loads(line)
            return said
    raise ConnectionResetError


async def _answer_on(
    lines: AsyncIterator[bytes], writer: asyncio.StreamWriter, operator: Operator, answer: Answer
) -> None:
    with contextlib.suppress(ConnectionError, ValueError):
        while True:
            await _reply(writer, operator, answer, await _next(lines))
    # A worker that no order can reach must not go on: its successor will be told the orders in force.
    os.kill(os.getpid(), signal.SIGTERM)


async def _reply(writer: asyncio.StreamWriter, operator: Operator, answer: Answer, asked: Json) -> None:
    told = b"null"
    try:
        if asked["what"] == _ORDERS:
            await asyncio.to_thread(_carry_out, operator, *asked["arguments"])
            told = b"{}"
        elif asked["what"] == _DOUBT:
            operator.standing.be_in_doubt(Doubt(*asked["arguments"]))
            told = b"{}"
        else:
            told = await answer(asked["what"], asked["arguments"])
    except Exception as error:  # noqa: BLE001 - the next question may succeed
        telemetry.unforeseen("orders" if asked["what"] == _ORDERS else "admin", error)
    if len(told) > _MAX_LINE - _MAX_UNREAD:
        # Too long a line would end the link, and so this worker.
        told = b"null"
    writer.write(b'{"number":%d,"answer":%s}\n' % (asked["number"], told))
    await writer.drain()


def _carry_out(operator: Operator, orders: list[tuple[int, str]], tokens: list[tuple[str, float]]) -> None:
    operator.carry_out([Order.parse(text, at) for at, text in orders])
    operator.list_tokens(tokens)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    # The supervisor has ended, and no longer reads.
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
