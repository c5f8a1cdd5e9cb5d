"""A request from its verdict on until its response is over; the same for every kind of application."""

import errno
from abc import ABC, abstractmethod
from contextvars import ContextVar, Token
from typing import NamedTuple

from authz.call.call import Call
from authz.call.principal import ANONYMOUS, Principal, reset_current_principal, set_current_principal
from authz.call.refusal import Challenge, Refusal, refusal_of
from authz.errors import AuthzError, InternalError
from authz.http.door import HttpDoor
from authz.judge.authorizer import Authorizer
from authz.judge.hearing import Hearing
from authz.runtime import fork
from authz.runtime.flow import Flow
from authz.token.bearer import credentials_of

_current: ContextVar["HttpRequest | None"] = ContextVar("authz_request", default=None)

_LAST_WORD = refusal_of(InternalError(), Challenge())

# For flags of any request that its server and a thread of the judge may set at the same time: rarely, and briefly.
_lock = fork.Lock()


class OverError(BrokenPipeError):
    """The application sends although its request is over; what servers raise when the client has gone."""

    def __init__(self) -> None:
        # By the number some servers tell that there is nothing to complain of.
        super().__init__(errno.EPIPE, "the request is over")


class HandedOver(NamedTuple):
    """A request that a door inside the application ends, and tells what becomes of it.

    Attributes:
        hearing: its hearing.
        principal: who makes it.
        seconds: how long the decision took.
        is_told: whether the observers know already that it is allowed.

    """

    hearing: Hearing
    principal: Principal
    seconds: float
    is_told: bool


class HttpRequest(ABC):
    """One request from its verdict on; to the judge a :class:`authz.judge.streams.Stream`.

    Args:
        door: who was asked.
        hearing: its hearing.

    Attributes:
        principal: who makes the request.

    """

    principal = ANONYMOUS

    _is_open = _is_told = _is_ending = _is_handed_over = False
    _refusal: Refusal | None = None
    _seconds = 0.0

    def __init__(self, door: HttpDoor, hearing: Hearing) -> None:
        self._door, self._hearing = door, hearing

    @abstractmethod
    def interrupt(self) -> None:
        """Have the application end its work on the request; from any thread, and without waiting."""

    def admit(self, principal: Principal) -> None:
        """Note who makes the request, now that it may be made.

        The observers are told of it; later, if the organization may have so many streams open that one more is refused
        when it begins.
        """
        self.principal = principal
        self._seconds = self._hearing.seconds
        quota = self._hearing.evidence.quota
        if not self._is_told and (quota is None or quota.concurrent_streams is None):
            self._is_told = True
            self._hearing.allowed(self._seconds)

    def enter(self) -> tuple[Token[Principal], Token["HttpRequest | None"]]:
        """Have code in this context find the caller and the request, until :meth:`exit` takes that back."""
        return set_current_principal(self.principal), _current.set(self)

    def exit(self, entered: tuple[Token[Principal], Token["HttpRequest | None"]]) -> None:
        """Take back what :meth:`enter` has done, which returned ``entered``."""
        principal, request = entered
        reset_current_principal(principal)
        _current.reset(request)

    def tell(self) -> None:
        """Tell the observers that the request is allowed, unless they know what became of it."""
        if self._is_told:
            return
        with _lock:
            is_told, self._is_told = self._is_told, True
        if not is_told:
            self._hearing.allowed(self._seconds)

    def opening(self) -> Flow[None]:
        """Have the judge end the request from now on when it must end, as a flow.

        Raises:
            OverError: it must end now.

        """
        if self._is_open or self._is_handed_over or self.principal is ANONYMOUS:
            return
        self._is_open = True
        try:
            opening = self._door.open(self, self._hearing, self.principal)
            if opening is not None:
                yield from opening
        except Exception as error:  # noqa: BLE001 - whatever happened, the judge could not end it
            self._is_open = False
            self._refusal = self._hearing.ended(error) if self._is_told else self._hearing.refused(error)
            self._is_told = True
        if self.must_end:
            raise OverError

    def refuse(self, error: AuthzError) -> Refusal:
        """Refuse the request after all, whatever the application answers from now on; return what its caller sees.

        Args:
            error: what its route asks for and it lacks.

        """
        self.tell()
        self._refusal = refusal = self._hearing.refused_by_route(error)
        return refusal

    def hand_over(self, judge: Authorizer, call: Call) -> HandedOver | None:
        """Leave the request to a door inside that would ask the same judge about the same call: the verdict stands.

        Once: what calls itself makes another call.

        Args:
            judge: whom that door asks.
            call: about what.

        Returns:
            ``None`` where it is another judge or another call, or where the judge itself would want a token that this
            door has not wanted. Then that door must ask.

        """
        own = self._hearing.call
        is_same = (own.method, own.verb) == (call.method, call.verb) and credentials_of(own) == credentials_of(call)
        is_known = self.principal is not ANONYMOUS or own.method in judge.in_force.now.public
        if judge is not self._door.authorizer or not is_same or not is_known:
            return None
        with _lock:
            is_handed_over, self._is_handed_over = self._is_handed_over, True
            is_told, self._is_told = self._is_told, self._is_told or not is_handed_over
        return None if is_handed_over else HandedOver(self._hearing, self.principal, self._seconds, is_told)

    @property
    def must_end(self) -> bool:
        """Whether the request must end, and nothing more of it may go on."""
        if self._is_open and self._refusal is None:
            self._door.authorizer.streams.look(self)
        return self._refusal is not None

    def leave(self) -> None:
        """Tell the judge and the observers that the request is over."""
        if self._is_open:
            self._is_open = False
            self._door.close(self)
        if not self._is_told:
            self.tell()

    def end(self, error: Exception) -> float | None:
        """See :class:`authz.judge.streams.Stream`."""
        with _lock:
            is_ending, self._is_ending = self._is_ending, True
        if is_ending:
            return None
        # Should telling fail, the request ends all the same.
        refusal = _LAST_WORD
        try:
            self.tell()
            refusal = self._hearing.ended(error)
        finally:
            self._refusal = refusal
            self.interrupt()
        return None


def current_request() -> HttpRequest | None:
    """Return the request that this code serves, or ``None`` where it serves none."""
    return _current.get()
