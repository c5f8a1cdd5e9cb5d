"""Bookkeeping of one call, for the door where it came in: start time, evidence, outcome."""

from time import perf_counter

from authz.call.call import Call
from authz.call.principal import Principal
from authz.call.refusal import Refusal
from authz.decisions.decision import Door, Event, Evidence
from authz.errors import AuthzError
from authz.judge.authorizer import Authorizer
from authz.runtime.flow import Flow, arun, run


class Hearing:
    """The hearing of one call, which begins when this is built.

    Args:
        authorizer: the judge.
        call: the call.
        door: where it came in.

    Attributes:
        call: the call; the door may replace it while it learns more of it.
        evidence: what the judge finds out about it.

    """

    __slots__ = ("_authorizer", "_began", "_door", "call", "evidence")

    def __init__(self, authorizer: Authorizer, call: Call, door: Door) -> None:
        self._began = perf_counter()
        self._authorizer, self._door = authorizer, door
        self.call = call
        self.evidence = Evidence()

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return perf_counter() - self._began

    def at_once(self) -> Principal | None:
        """Return who makes the call, if it may be made and that takes no waiting; ``None``: let :meth:`decide` wait.

        Raises:
            AuthzError: it may not be made.

        """
        return self._authorizer.at_once(self.call, self.evidence)

    def verdict(self) -> Flow[Principal]:
        """Return who makes the call, if it may be made, as a flow: at once, or after what it has to wait for."""
        principal = self.at_once()
        return principal or (yield from self._authorizer.authorize(self.call, self.evidence))

    def decide(self, timeout: float | None = None) -> Principal:
        """Return who makes the call, if it may be made; block this thread while the judge waits for others.

        Args:
            timeout: seconds that each wait may last at the most, or ``None`` for what the judge allows.

        Raises:
            AuthzError: it may not be made, or there can be no verdict now.

        """
        return run(self.verdict(), timeout)

    async def adecide(self) -> Principal:
        """Return who makes the call as :meth:`decide` does, in this task, without blocking the loop."""
        return await arun(self.verdict())

    def confirm(self, principal: Principal) -> None:
        """Check that the call may still be made, now that its request has come.

        Raises:
            AuthzError: it may not.

        """
        self._authorizer.confirm(self.call, principal, self.evidence)

    def allowed(self, seconds: float | None = None) -> None:
        """Tell the observers that the call may be made, which took ``seconds`` to decide, or all the time so far."""
        telling = self._authorizer.telling
        if telling.is_heard:
            telling.decided(
                self.call, self.evidence, None, self.seconds if seconds is None else seconds, door=self._door
            )

    def refused(self, error: BaseException) -> Refusal:
        """Tell the observers that the call is refused, and return what its caller sees."""
        return self._tell(error, self.seconds)

    def refused_by_route(self, error: BaseException) -> Refusal:
        """Tell the observers that the call, which was allowed, is refused by its route, which asks for more.

        Returns:
            What its caller sees.

        """
        return self._tell(error, 0.0, "route_refused")

    def ended(self, error: Exception) -> Refusal:
        """Tell the observers that the call, an allowed stream, must end; return what its caller sees."""
        return self._tell(error, 0.0, "stream_ended")

    def _tell(self, error: BaseException, seconds: float, event: Event = "decision") -> Refusal:
        telling = self._authorizer.telling
        logged = "stream_ended" if event == "stream_ended" else "call_refused"
        refusal = telling.refusal(self.call, error, event=logged)
        self.evidence.order_source = error.order_source if isinstance(error, AuthzError) else ""
        telling.decided(self.call, self.evidence, refusal, seconds, door=self._door, event=event)
        return refusal
