"""A worker as its supervisor sees it: a process and its messages; see :mod:`authz.server.workers.worker`."""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from authz.runtime import telemetry
from authz.server.serving.health import STARTING
from authz.server.workers.silence import Silence
from authz.server.workers.words import words
from authz.server.workers.worker import TURN, VARIABLE

if TYPE_CHECKING:
    from authz.server.workers.link import WorkerLink
    from authz.server.workers.links import Links

# How long to read its last messages after its end: a process that it has left behind may hold the link open.
_LAST_WORDS_SECONDS = 2.0


class Child:
    """One worker process.

    Args:
        process: the process.
        reader: where its messages come from.
        writer: tells it when it is its turn to listen.
        changed: is called whenever an attribute has changed.
        hung_after: seconds without a sign of life after which it is killed.
        orders: the link that tells it which callers the operator refuses; a worker that has lost this link is killed.

    Attributes:
        ended: a task that returns its exit code when it has ended, negative if a signal ended it.
        is_able: whether it could decide checks if it listened; ``None`` before it knows.
        is_listening: whether it has begun to listen.
        unready: why it cannot decide checks now; empty if it can.
        is_stale: whether its last reload of a policy failed.
        error: what is wrong with its configuration, if that ended it.
        changes: how often something has changed in it that may turn a yes into a no.
        is_hung: whether it was killed because it gave no sign of life, or could hear no orders any more.

    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        changed: Callable[[], None],
        hung_after: float,
        orders: "WorkerLink | None" = None,
    ) -> None:
        self._process, self._reader, self._writer = process, reader, writer
        self._changed, self._tell = asyncio.Event(), changed
        self.is_able: bool | None = None
        self.is_listening = False
        self.unready = STARTING
        self.is_stale = False
        self.error = ""
        self.changes = 0
        self.is_hung = False
        self._orders = orders
        self._silence, self._has_turn = Silence(hung_after), False
        self._is_told_to_end = False
        self.ended = asyncio.create_task(self._run())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        number: int,
        listen: Sequence[str],
        *,
        variables: Mapping[str, str],
        changed: Callable[[], None],
        hung_after: float,
        links: "Links | None" = None,
    ) -> Self:
        """Start a worker: it loads, and waits for its turn to listen.

        Args:
            command: what to run.
            number: which worker it is.
            listen: its addresses.
            variables: of its environment, besides those of this process.
            changed: is called whenever an attribute has changed.
            hung_after: seconds without a sign of life after which it is killed.
            links: the links to workers, if any orders may come.

        """
        ours, its = socket.socketpair()
        async with contextlib.AsyncExitStack() as passed:
            passed.enter_context(its)
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            unused = passed.enter_context(contextlib.ExitStack())
            unused.callback(writer.transport.abort)
            passed_on, orders = {"link": its.fileno()}, None
            if links is not None:
                its_orders, orders = await passed.enter_async_context(links.link(number))
                passed_on["orders"] = its_orders.fileno()
            told = json.dumps({"number": number, "listen": listen, **passed_on})
            process = await asyncio.create_subprocess_exec(
                *command,
                env={**os.environ, **variables, VARIABLE: told},
                pass_fds=passed_on.values(),
                # Ctrl-C and the end of a terminal reach the supervisor alone, which then ends its workers in order.
                start_new_session=True,
            )
            unused.pop_all()
        return cls(process, reader, writer, changed=changed, hung_after=hung_after, orders=orders)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def let_listen(self) -> None:
        """Tell it that it is its turn to listen."""
        self._has_turn = True
        self._silence.broken(0.0)
        self._writer.write(TURN + b"\n")

    def begin(self, generation: str) -> None:
        """Tell it to which generation its answers belong."""
        self._writer.write(generation.encode() + b"\n")

    async def until(self, condition: Callable[[], object]) -> bool:
        """Wait until ``condition`` holds or the worker has ended; return whether it holds."""
        while not (holds := condition()) and not self.ended.done():
            await self._changed.wait()
        return bool(holds)

    def stop(self, number: int, patience: float) -> None:
        """Send it a signal to end, once, and kill it if it has not ended after ``patience`` seconds.

        A second signal could come after it has taken its handlers away, and end it before it has written its figures.
        """
        if self._is_told_to_end:
            return
        self._is_told_to_end = True
        self._send(number)
        asyncio.get_running_loop().call_later(patience, self.kill)

    def kill(self) -> None:
        """Kill it."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def _run(self) -> int:
        listening, watching = asyncio.create_task(self._listen()), asyncio.create_task(self._watch())
        try:
            status = await self._process.wait()
            await asyncio.wait([listening], timeout=_LAST_WORDS_SECONDS)
            return status
        finally:
            listening.cancel()
            watching.cancel()
            if self._orders is not None:
                self._orders.ended.set()
            self._writer.transport.abort()
            asyncio.get_running_loop().call_soon(self._note)

    async def _listen(self) -> None:
        # It may end before it has read what it was told, or in the middle of a message.
        with contextlib.suppress(ConnectionError):
            async for said in words(self._reader):
                self._hear(said)
                try:
                    self._note()
                except Exception as error:  # noqa: BLE001 - an observer must not end this task
                    telemetry.unforeseen("workers", error)

    async def _watch(self) -> None:
        ways = [self._silence.too_long(), *([] if self._orders is None else [self._orders.lost()])]
        watching = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in watching:
                task.cancel()
        self.is_hung = True
        self.kill()

    def _hear(self, said: Mapping[str, Any]) -> None:
        if said.get("listening") and not self.is_listening:
            self._silence.is_starting = False
            self._silence.broken(0.0)
        self.is_able = said.get("able", self.is_able)
        self.is_listening = said.get("listening", self.is_listening)
        self.unready = said.get("unready", self.unready)
        self.is_stale = said.get("stale", self.is_stale)
        self.error = said.get("error", self.error)
        self.changes = said.get("changes", self.changes)
        # A worker that was told to listen and does not counts as silent, whatever signs of life it gives.
        if "silent" in said and (self.is_listening or not self._has_turn):
            self._silence.broken(said["silent"])

    def _note(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self._tell()
