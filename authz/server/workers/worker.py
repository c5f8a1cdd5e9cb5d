"""One of several server processes, and what it and its supervisor tell each other over a pair of sockets.

The worker sends lines of JSON to :class:`authz.server.workers.child.Child`: its whole
state with every sign of life, so that a lost message does no harm.
The supervisor sends lines as well: that it is the worker's turn to listen, and under which generation Envoy remembers
its answers.
When the socket closes the supervisor has ended, and a thread ends the worker as well, even one that is still loading.
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Self

from authz.errors import UnavailableError
from authz.runtime.flow import arun
from authz.server.serving.pulse import BEAT
from authz.server.workers.words import line

if TYPE_CHECKING:
    from authz.judge.authorizer import Authorizer
    from authz.server.serving.health import Health

VARIABLE = "_AUTHZ_WORKER"
"""The environment variable that tells a process that it is a worker, its number and its links."""

_WARM_UP_SECONDS = 5.0
# After the end of the supervisor, which would have killed a worker that hangs; and the exit code of such a worker.
_END_SECONDS, _ORPHANED = 10.0, 1
# Bytes; more than there ever is to read at once.
_MOST = 4096
TURN = b"!"
"""Tells a worker that it may listen. Any other line is a generation; see :class:`authz.envoy.memo.mark.Memo`."""


class Worker:
    """This process as a worker; a context manager that owns the link.

    Args:
        number: the number of the worker.
        listen: the addresses on which it is to listen.
        link: the socket to its supervisor.
        orders: the socket for orders of the operator, if any may come; see :mod:`authz.server.workers.link`.

    """

    def __init__(
        self, number: int, listen: Sequence[str], link: socket.socket, orders: socket.socket | None = None
    ) -> None:
        self.number = number
        self.listen = listen
        self.orders = orders
        self._link = link
        link.settimeout(0)
        self._turn = asyncio.Event()
        self._said: dict[str, object] = {}
        self._still: Callable[[], float] = lambda: 0.0
        self._is_over = False
        self._heard = b""
        self._begin: Callable[[str], object] = bool

    @classmethod
    def of_environment(cls) -> Self | None:
        """Return the worker that this process is, if it is one."""
        text = os.environ.pop(VARIABLE, None)
        if text is None:
            return None
        told = json.loads(text)
        orders = socket.socket(fileno=told["orders"]) if "orders" in told else None
        return cls(told["number"], told["listen"], socket.socket(fileno=told["link"]), orders)

    def say(self, **what: object) -> None:
        """Tell the supervisor what has changed; it is repeated with every sign of life."""
        self._said |= what
        self._send(self._said)

    def hear_generations(self, begin: Callable[[str], object]) -> None:
        """Have ``begin`` called with every generation that the supervisor names; call it before :meth:`turn`."""
        self._begin = begin

    @contextlib.asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Give the supervisor a sign of life every second, until the end of the block.

        It comes from the event loop, and tells for how long other threads that decide have stood still.
        """
        beating = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            beating.cancel()

    async def turn(self, authorizer: "Authorizer") -> None:
        """Return when it is this worker's turn to listen; tell the supervisor meanwhile when it is able to."""
        asyncio.get_running_loop().add_reader(self._link, self._listen_to_supervisor)
        warming = asyncio.create_task(self._warm_up(authorizer))
        await self._turn.wait()
        warming.cancel()

    @contextlib.asynccontextmanager
    async def reporting(self, health: "Health") -> AsyncIterator[None]:
        """Tell the supervisor of every change of health, until the end of the block."""
        health.watch(self._tell_health)
        self._still = lambda: health.still
        try:
            yield
        finally:
            asyncio.get_running_loop().remove_reader(self._link)

    def __enter__(self) -> Self:
        # On a thread: the event loop does not run while this process loads.
        threading.Thread(target=self._end_with_supervisor, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        # Read the socket empty first: closing it unread sends a reset, and loses our last message.
        with contextlib.suppress(OSError):
            self._link.recv(_MOST)
        self._link.close()
        if self.orders is not None:
            self.orders.close()

    async def _beat(self) -> None:
        while True:
            self._send({**self._said, "silent": self._still()})
            await asyncio.sleep(BEAT)

    def _send(self, said: dict[str, object]) -> None:
        # The supervisor may have ended; and one that does not read must not hold up a worker that decides.
        with contextlib.suppress(OSError):
            self._link.send(line(said))

    async def _warm_up(self, authorizer: "Authorizer") -> None:
        with contextlib.suppress(UnavailableError):
            await arun(authorizer.verifier.warm_up_flow(_WARM_UP_SECONDS))
            self.say(able=True)
            return
        self.say(able=False)

    async def _tell_health(self, reason: str) -> None:
        self.say(unready=reason)

    def _listen_to_supervisor(self) -> None:
        try:
            told = self._link.recv(_MOST)
        except BlockingIOError:
            return
        except ConnectionError:
            # The supervisor ended before it had read our last message.
            told = b""
        if not told:
            asyncio.get_running_loop().remove_reader(self._link)
        *lines, self._heard = (self._heard + told).split(b"\n")
        for line_heard in lines:
            if line_heard == TURN:
                self._turn.set()
            else:
                self._begin(line_heard.decode("ascii", "replace"))

    def _end_with_supervisor(self) -> None:
        link = select.poll()
        # Without any event: poll() reports in any case that the other end has been closed.
        link.register(self._link, 0)
        link.poll()
        if self._is_over:
            return
        if self._said.get("listening"):
            # Without a drain: clients find no other worker of this supervisor. Calls that run get their grace.
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(_END_SECONDS)
        # A worker that does not listen has nothing to finish; one that still runs now hangs, and would keep its port.
        os._exit(_ORPHANED)
