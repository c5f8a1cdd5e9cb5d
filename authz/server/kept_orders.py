"""The orders of the operator, kept where they outlive this server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from authz.judge.orders.file import OrdersFile
from authz.judge.orders.operator import Operator
from authz.judge.orders.standing import Standing
from authz.judge.streams import OpenStreams
from authz.runtime.clock import SYSTEM_CLOCK
from authz.settings.settings import Settings


@contextlib.asynccontextmanager
async def kept_orders(settings: Settings, operator: Operator) -> AsyncIterator[OrdersFile | None]:
    """Keep the orders in the file that the settings name until the end of the block; yield it, if there is one.

    Raises:
        ConfigError: the file cannot be used.

    """
    if settings.orders is None:
        yield None
        return
    file = OrdersFile(settings.orders, operator)
    # On a thread: it waits for the disk, and for those whom the orders are told.
    await asyncio.to_thread(file.__enter__)
    try:
        yield file
    finally:
        await asyncio.to_thread(file.__exit__)


def operator_of(settings: Settings) -> Operator:
    """Return what takes orders in a process that decides nothing itself, for its workers.

    Raises:
        ConfigError: the file of issuers cannot be read.

    """
    listed = settings.listed()
    issuers = [settings.issuer] if listed is None else [each.name for each in listed.listed]
    return Operator(Standing(), OpenStreams(), clock=SYSTEM_CLOCK, issuers=[each for each in issuers if each])
