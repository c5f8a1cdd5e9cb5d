"""One RPC from its verdict on until it is over; the same for services of both kinds."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from authz.call.call import Call
from authz.call.principal import ANONYMOUS, Principal
from authz.connect.isolation import check_request
from authz.connect.refusals import refused
from authz.connect.requests import Context, as_text, call_of, tell_handler
from authz.http.door import HttpDoor, Judge
from authz.http.headers import Telling
from authz.http.serving import HttpRequest, OverError, current_request
from authz.judge.authorizer import Authorizer, as_authorizer
from authz.judge.hearing import Hearing
from authz.judge.streams import StreamExpiry


class NoVerdictError(RuntimeError):
    """An application has not all of the interceptors, or not in their order, so that there was no verdict on an RPC."""


class Rpc(HttpRequest):
    """One RPC that was admitted: its caller, the check of its requests, and the end of its stream.

    Args:
        door: what admitted it.
        hearing: its hearing.
        ctx: its context.

    """

    _has_begun = False

    def __init__(self, door: HttpDoor, hearing: Hearing, ctx: Context) -> None:
        super().__init__(door, hearing)
        self._ctx = ctx

    def admit(self, principal: Principal) -> None:
        """Note who makes the RPC; the observers are told once its request has been checked, or its stream opened."""
        self.principal, self._seconds = principal, self._hearing.seconds

    def take_over(self) -> bool:
        """Take the RPC over from :class:`AuthzMiddleware`, if that has asked the same judge about it; say whether so.

        The two doors are one then: the call is judged once, counted once and told once.
        """
        outer = current_request()
        handed = None if outer is None else outer.hand_over(self._door.authorizer, self._hearing.call)
        if handed is None:
            return False
        self._hearing, self.principal, self._seconds, self._is_told = handed
        return True

    def hand_over(self, _judge: Authorizer, _call: Call) -> None:
        """Keep the RPC: what its handler calls is another call."""

    def check_next(self, request: Any) -> None:
        """Check one message of a stream of requests; the first one that the handler may not see ends the stream.

        Raises:
            RefusedError: the handler may not see it, or the stream must end.

        """
        try:
            check_request(request, self.principal)
        except Exception as error:
            self._door.authorizer.streams.end_one(self, error)
            self.check_on()
            raise
        self.check_on()

    def check_only(self, request: Any) -> None:
        """Check the only request of the RPC: the verdict came with the headers, and it may come any time later.

        Raises:
            RefusedError: the handler may not see it.

        """
        try:
            if self.principal is not ANONYMOUS:
                self._hearing.confirm(self.principal)
            check_request(request, self.principal)
        except Exception as error:  # noqa: BLE001 - whatever happened, the handler must not see the request
            refusal = self._hearing.refused_by_route(error) if self._is_told else self._hearing.refused(error)
            self._is_told = True
        else:
            return
        raise refused(self._ctx, refusal)

    def check_on(self) -> None:
        """Check that the RPC may go on.

        Raises:
            RefusedError: it must end.

        """
        if self.must_end and self._refusal is not None:
            raise refused(self._ctx, self._refusal, has_begun=self._has_begun)

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """Have the code in the block find the caller by :func:`authz.current_principal`."""
        entered = self.enter()
        try:
            yield
        finally:
            self.exit(entered)

    @contextlib.contextmanager
    def beginning(self) -> Iterator[None]:
        """Open the stream of the RPC in the block.

        Raises:
            RefusedError: it must end now, or its organization has as many streams open as it may.

        """
        with contextlib.suppress(OverError):
            yield
        self.check_on()
        self.tell()

    def interrupt(self) -> None:
        """Do nothing: no more messages are sent."""


R = TypeVar("R", bound=Rpc)


class ConnectDoor(HttpDoor, Generic[R]):
    """The judge of some services, and the RPCs that it has admitted.

    Args:
        judge: decides.
        public_methods: full names of methods that need no token.
        stream_expiry: see :class:`authz.judge.streams.StreamRules`.
        grace: likewise.

    Raises:
        ConfigError: an argument that cannot work; the message names it.

    """

    def __init__(
        self,
        judge: Judge,
        public_methods: Collection[str],
        stream_expiry: StreamExpiry | Mapping[str, StreamExpiry],
        grace: float,
    ) -> None:
        super().__init__(as_authorizer(judge, public_methods), stream_expiry=stream_expiry, grace=grace)
        self._told = Telling(self.authorizer.trusted, as_text)
        self._admitted: WeakKeyDictionary[Context, R] = WeakKeyDictionary()

    def admit(self, ctx: Context, rpc: R) -> None:
        """Note that an RPC may be made, and tell its handler who makes it."""
        tell_handler(ctx.request_headers, self.authorizer.trusted.reserved, self._told.headers(rpc.principal))
        self._admitted[ctx] = rpc

    def admitted(self, ctx: Context) -> R:
        """Return an RPC that may be made.

        Raises:
            RefusedError: there was no verdict on it.

        """
        rpc = self._admitted.get(ctx)
        if rpc is None:
            hearing = Hearing(self.authorizer, call_of(ctx), "connect")
            raise refused(ctx, hearing.refused(NoVerdictError()))
        return rpc

    def dismiss(self, ctx: Context, rpc: R) -> None:
        """Note that an RPC is over."""
        # It holds its context, which would keep the entry.
        self._admitted.pop(ctx, None)
        rpc.leave()
