"""What a slot does while no process can be started; the rest is in test_workers.py."""

import asyncio
import errno

from authz.server.workers.child import Child
from authz.server.workers.slot import Slot


class Exhausted:
    """A machine that starts no more processes."""

    def __init__(self) -> None:
        self.attempts = 0
        self.is_tried_thrice = asyncio.Event()

    async def start(self, _number: int) -> Child:
        self.attempts += 1
        if self.attempts == 3:
            self.is_tried_thrice.set()
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


def test_process_that_cannot_be_started_is_tried_again() -> None:
    async def keep() -> int:
        machine = Exhausted()
        slot = Slot(0, machine.start, patience=1, ended=lambda _: None)
        keeping = asyncio.create_task(slot.keep())
        async with asyncio.timeout(120):
            await machine.is_tried_thrice.wait()
            slot.end(15)
            await keeping
        return machine.attempts

    assert asyncio.run(keep()) == 3


def test_successor_that_cannot_be_started_replaces_nobody() -> None:
    async def replace() -> bool:
        return await Slot(0, Exhausted().start, patience=1, ended=lambda _: None).replace()

    assert asyncio.run(replace()) is False
