"""Several server processes as one: started, kept alive, replaced one by one, and ended together.

The supervisor itself answers no checks and reads no token: whatever a caller sends can harm a worker only.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from authz.runtime import telemetry
from authz.server.serving.health import STARTING, STOPPING
from authz.server.signals import on_signals
from authz.server.workers.child import Child
from authz.server.workers.shared_addresses import SharedAddresses
from authz.server.workers.slot import Slot

if TYPE_CHECKING:
    from authz.server.workers.links import Links


class Supervisor:
    """Keep several workers running.

    Args:
        workers: how many.
        addresses: where they listen.
        drain: seconds that load balancers need to notice that a worker ends or has begun to listen.
        patience: seconds that a worker may take to end before it is killed.
        started: is called once, when all workers listen.
        ended: is called with the number of a worker whenever it has ended.
        variables: of their environment, besides those of this process.
        timeout: seconds without a sign of life after which a worker is killed, and another started.
        command: what they run; by default the command of this process.
        links: by which the workers are told the orders of the operator, if any may come.
        changed: is called whenever something has changed in a worker that may turn a yes into a no, and whenever a
            worker begins or ends.

    """

    def __init__(
        self,
        workers: int,
        addresses: SharedAddresses,
        *,
        drain: float,
        patience: float,
        started: Callable[[], None],
        ended: Callable[[int], object] = lambda _: None,
        variables: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        command: Sequence[str] = (),
        links: "Links | None" = None,
        changed: Callable[[], object] = lambda: None,
    ) -> None:
        self._changed, self._generation = changed, ""
        # Every process, also one that is starting or ending, with the number of its changes.
        self._changes: dict[Child, int] = {}
        self._addresses = addresses
        self._started, self._has_started = started, False
        self._drain, self._timeout = drain, timeout
        self._variables, self._links = variables or {}, links
        self._command = command or (sys.executable, *sys.orig_argv[1:])
        self._slots = [Slot(number, self._start, patience, ended) for number in range(workers)]
        self._is_ending = False
        self._wants_replacement = asyncio.Event()
        self._replacing: asyncio.Task[None] | None = None

    @property
    def unready(self) -> str:
        """Why no checks can be decided now; empty if some worker can."""
        if self._is_ending:
            return STOPPING
        reasons = [slot.child.unready if slot.child is not None else STARTING for slot in self._slots]
        return "" if "" in reasons else next((each for each in reasons if each != STARTING), STARTING)

    @property
    def is_stale(self) -> bool:
        """Whether the last reload of a policy failed in some worker."""
        return any(child.is_stale for child in self._children())

    @property
    def running(self) -> int:
        """How many workers listen."""
        return sum(child.is_listening and not child.ended.done() for child in self._children())

    @property
    def restarts(self) -> int:
        """How many workers were started because another had died."""
        return sum(slot.restarts for slot in self._slots)

    @property
    def hangs(self) -> int:
        """How many workers were killed because they gave no sign of life."""
        return sum(slot.hangs for slot in self._slots)

    @property
    def processes(self) -> dict[str, int]:
        """The ids of the processes that run, by the number of the worker; that of this one is of ``supervisor``."""
        children = {str(slot.number): slot.child for slot in self._slots}
        running = {number: child.pid for number, child in children.items() if child and not child.ended.done()}
        return {"supervisor": os.getpid(), **running}

    def begin(self, generation: str) -> None:
        """Tell all workers, and those that start later, to which generation their answers belong."""
        self._generation = generation
        for child in self._changes:
            child.begin(generation)

    async def run(self) -> None:
        """Keep the workers running until SIGTERM or SIGINT, which is passed on; at SIGHUP replace them one by one.

        Raises:
            ConfigError: they cannot work with this configuration.

        """
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: partial(self._end, signal.SIGTERM),
            signal.SIGINT: partial(self._end, signal.SIGINT),
            signal.SIGHUP: self._wants_replacement.set,
        }
        with on_signals(handlers):
            keeping = [asyncio.create_task(slot.keep()) for slot in self._slots]
            self._replacing = asyncio.create_task(self._replace_when_wanted())
            tasks = (*keeping, self._replacing)
            # A task ends only when all workers are to end, or when the configuration is wrong.
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self._end(signal.SIGTERM)
            results = await asyncio.gather(*tasks, return_exceptions=True)
        telemetry.event(telemetry.INFO, "stopped")
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _end(self, number: int) -> None:
        self._is_ending = True
        if self._replacing is not None:
            self._replacing.cancel()
        for slot in self._slots:
            slot.end(number)

    async def _replace_when_wanted(self) -> None:
        while True:
            await self._wants_replacement.wait()
            self._wants_replacement.clear()
            telemetry.event(telemetry.INFO, "replacing_workers")
            try:
                await self._replace_all()
            except Exception as error:  # noqa: BLE001 - a replacement that fails must not end the running workers
                telemetry.unforeseen("workers", error)

    async def _replace_all(self) -> None:
        for slot in self._slots:
            if not await slot.replace():
                return
            # Load balancers must have noticed the successor before the next worker ends.
            await asyncio.sleep(self._drain)
        telemetry.event(telemetry.INFO, "workers_replaced")

    async def _start(self, number: int) -> Child:
        listen = self._addresses.of(number)
        child = await Child.start(
            self._command,
            number,
            listen,
            variables=self._variables,
            changed=self._note,
            hung_after=self._timeout,
            links=self._links,
        )
        self._changes[child] = child.changes
        child.begin(self._generation)
        return child

    def _children(self) -> list[Child]:
        return [slot.child for slot in self._slots if slot.child is not None]

    def _note(self) -> None:
        running = {child: child.changes for child in self._changes if not child.ended.done()}
        if running != self._changes:
            # One that has ended may not have said all that had changed in it.
            self._changes = running
            self._changed()
        if not self._has_started and self.running == len(self._slots):
            self._has_started = True
            self._started()
