"""Whether checks can be decided, which needs the issuer's keys: looked at again and again, and passed on."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from authz.errors import UnavailableError
from authz.runtime import telemetry
from authz.runtime.flow import arun
from authz.runtime.network import causes
from authz.server.serving.pulse import Pulse

if TYPE_CHECKING:
    from authz.judge.authorizer import Authorizer

STARTING, STOPPING = "starting", "stopping"

_PAUSE = 1.0


class Health:
    """Whether checks can be decided.

    Args:
        authorizer: the judge.
        pulse: whether the threads that decide stand still.

    Attributes:
        reason: why checks cannot be decided: ``starting``, ``stopping``, ``internal``, or the reason of callers who
            are refused for it, with the cause after a colon where another server is needed; empty while they can.
            ``orders_stale`` where they can, but by orders that were not confirmed for too long.

    """

    def __init__(self, authorizer: "Authorizer", pulse: Pulse) -> None:
        self._authorizer, self._pulse = authorizer, pulse
        self._watchers: list[Callable[[str], Awaitable[object]]] = []
        self.reason = STARTING

    @property
    def still(self) -> float:
        """For how many seconds a thread that decides has stood still."""
        return self._pulse.still

    def watch(self, changed: Callable[[str], Awaitable[object]]) -> None:
        """Have ``changed`` called with the reason, and awaited, whenever that changes."""
        self._watchers.append(changed)

    async def keep(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            pause, reason = _PAUSE, ""
            try:
                await arun(self._authorizer.verifier.warm_up_flow(timeout=0))
            except UnavailableError as error:
                pause, cause = error.retry_after, causes.word(error.cause)
                # One issuer that is down does not affect callers of another.
                keys = self._authorizer.verifier.health().values()
                if not any(each.is_ready for each in keys):
                    reason = f"{error.reason}: {cause}" if cause else error.reason
            except Exception as error:  # noqa: BLE001 - without this task the last status would stay for ever
                telemetry.unforeseen("health", error)
                reason = "internal"
            await self._change(self._authorizer.standing.doubt.why or reason)
            await asyncio.sleep(pause)

    async def end(self) -> None:
        """Say that there will be no more decisions soon; call it after :meth:`keep` has been cancelled."""
        await self._change(STOPPING)

    async def _change(self, reason: str) -> None:
        if reason != self.reason:
            self.reason = reason
            for changed in self._watchers:
                await changed(reason)
