"""The links to all workers of a supervisor: every order is in force in each of them when its giver is answered."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self

from authz.judge.orders.operator import Listings, Operator
from authz.judge.orders.order import Order
from authz.judge.orders.standing import Doubt
from authz.server.workers.link import Json, WorkerLink, link_to_worker, pages_of

ANSWER_SECONDS = 2.0
"""How long the page waits for a worker."""


class Links:
    """An asynchronous context manager: within it workers are told what the operator of this process orders.

    Orders must then be given on other threads than that of the event loop, which they wait for.

    Args:
        operator: that of this process, which decides nothing itself.
        patience: seconds that the answer of a worker to a question may take.

    """

    def __init__(self, operator: Operator, *, patience: float = ANSWER_SECONDS) -> None:
        self._operator, self._patience = operator, patience
        self._links: list[WorkerLink] = []
        self._doubt = Doubt()
        self._names: dict[str, str] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._operator.watch(self._spread)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop = None
        for link in list(self._links):
            await link.close()

    @property
    def ready(self) -> list[WorkerLink]:
        """The links to the workers that have heard all orders."""
        return [link for link in self._links if link.is_ready]

    @property
    def pending(self) -> int:
        """How many workers are starting: they will have heard all orders before they listen."""
        return len(self._links) - len(self.ready)

    @contextlib.asynccontextmanager
    async def link(self, number: int) -> AsyncIterator[tuple[socket.socket, WorkerLink]]:
        """Yield the socket for a worker that is about to start, and the supervisor's end of the link."""
        ours, its = socket.socketpair()
        with its:
            link = await link_to_worker(
                number,
                ours,
                snapshot=self._snapshot,
                doubt=lambda: self._doubt,
                names=lambda: self._names,
                closed=self._forget,
                patience=self._patience,
            )
            self._links.append(link)
            yield its, link

    def tell_doubt(self, doubt: Doubt) -> None:
        """Tell all workers, also those that start later, whether the orders may not be known."""
        self._doubt = doubt
        for link in self.ready:
            link.tell_doubt()

    def tell_names(self, names: Mapping[str, str]) -> None:
        """Tell all workers, also those that start later, what applications are called; not for a task.

        Args:
            names: what they are called by now, by client id; an empty name is to be forgotten.

        """
        loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(self._name, names)

    async def ask(self, what: str, *arguments: Any) -> tuple[list[Json], int]:
        """Return the answers of the workers to a question, and how many gave none."""
        answers = await asyncio.gather(*(link.ask(what, *arguments) for link in self.ready))
        given = [answer for answer in answers if answer is not None]
        return given, len(answers) - len(given)

    def _name(self, names: Mapping[str, str]) -> None:
        for client_id, name in names.items():
            if name:
                self._names[client_id] = name
            else:
                self._names.pop(client_id, None)
        for link in self.ready:
            link.naming.tell(names)

    def _spread(self, orders: Sequence[Order]) -> None:
        loop = self._loop
        if loop is not None:
            pages = pages_of((), orders.tokens) if isinstance(orders, Listings) else pages_of(orders)
            asyncio.run_coroutine_threadsafe(self._tell_all(pages), loop).result()

    async def _tell_all(self, pages: Sequence[bytes]) -> None:
        await asyncio.gather(*(link.carry_out(pages) for link in list(self._links)))

    def _snapshot(self) -> list[bytes]:
        with self._operator.unchanged() as book:
            orders, tokens = list(book), list(book.tokens)
        return pages_of(orders, tokens)

    def _forget(self, link: WorkerLink) -> None:
        with contextlib.suppress(ValueError):
            self._links.remove(link)
