"""A bounded number of checks that wait, shared out among the organizations that call."""

from typing import TypeVar

from authz.errors import OverloadedError
from authz.runtime.flow import Flow, Wait, arun
from authz.runtime.shares import Shares

T = TypeVar("T")

MAX_PENDING = 1024


class Waiting:
    """The checks of one door that wait: for the issuer's keys, the issuer's answer or the directory's.

    At most half of the places are of one organization, or of callers whose token has not been verified yet, so that no
    organization keeps out another. One more check is refused at once: proxies wait briefly, and each check that waits
    costs memory.

    Args:
        places: how many may wait at a time.

    """

    def __init__(self, places: int = MAX_PENDING) -> None:
        self._places = Shares(places)

    @property
    def count(self) -> int:
        """How many wait now."""
        return self._places.taken

    def begin(self, flow: Flow[T]) -> T | tuple[Flow[T], Wait]:
        """Return what ``flow`` returns, if it need not wait, as most need not.

        For one that does, return the flow and the wait that it has yielded; the engine that drives it to its end calls
        :meth:`end` with that wait afterwards.
        """
        try:
            wait = next(flow)
            if self._places.take(wait.whose):
                return flow, wait
            flow.throw(OverloadedError())
        except StopIteration as done:
            answer: T = done.value
            return answer
        raise RuntimeError("a flow must not go on after it has been told to end")

    def end(self, wait: Wait) -> None:
        """Give back the place of a check that had to wait, for ``wait`` first, and is over."""
        self._places.give_back(wait.whose)

    async def finish(self, flow: Flow[T], wait: Wait) -> T:
        """Drive a flow that waits to its end, as a task."""
        try:
            return await arun(flow, waiting=wait)
        finally:
            self.end(wait)
