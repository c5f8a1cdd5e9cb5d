"""What a supervisor tells other replicas of its workers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from authz.decisions.sample import SAMPLED, Sampled
from authz.server.admin.shapes import makes_sense
from authz.server.shared_orders import SharedOrders
from authz.server.workers.links import Links

_PAUSE = 5.0


class About:
    """What the workers say of their policy and keys; call it for the latest.

    Args:
        links: the links to them.

    """

    def __init__(self, links: Links) -> None:
        self._links = links
        self._told: dict[str, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def __call__(self) -> dict[str, Any]:
        """Return it, by the names of :class:`authz.store.replicas.Replica`."""
        return {**self._told, "workers": len(self._links.ready)}

    def look(self) -> Sampled:
        """Return what the workers have decided since the last look, as many as of one process; not for a task."""
        if self._loop is None:
            return Sampled([], 0)
        asked, _ = asyncio.run_coroutine_threadsafe(self._links.ask("sample"), self._loop).result()
        answers = [answer for answer in asked if makes_sense("sample", answer)]
        decisions = sorted((each for answer in answers for each in answer["decisions"]), key=_time)
        told, left_out = decisions[-2 * SAMPLED :], sum(answer["left_out"] for answer in answers)
        return Sampled(told, left_out + len(decisions) - len(told))

    @contextlib.asynccontextmanager
    async def kept(self, shared: SharedOrders) -> AsyncIterator[None]:
        """Ask the workers every few seconds until the end of the block, where there are other replicas to tell."""
        if shared.sharing is None:
            yield
            return
        self._loop = asyncio.get_running_loop()
        asking = asyncio.create_task(self._ask_on())
        try:
            yield
        finally:
            self._loop = None
            asking.cancel()

    async def _ask_on(self) -> None:
        while True:
            answers, _ = await self._links.ask("about")
            # While workers are replaced one by one there may be two policies.
            policies = sorted({str(each["policy"]) for each in answers if "policy" in each})
            ages = [each["keys_age"] for each in answers if isinstance(each.get("keys_age"), int | float)]
            self._told = {"policy": ", ".join(policies)[:200], "keys_age": max(ages, default=None)}
            await asyncio.sleep(_PAUSE if answers else 1.0)


def _time(decision: dict[str, Any]) -> float:
    time: float = decision["time"]
    return time
