"""What one RPC may still do once it has been admitted; the same on both servers."""

import math
from typing import Any, Protocol

from google.protobuf.message import Message

from authz.call.principal import ANONYMOUS, Principal
from authz.call.refusal import Refusal
from authz.judge.authorizer import Authorizer
from authz.judge.hearing import Hearing
from authz.judge.streams import Stream, StreamRules
from authz.policy.protos.isolation import check_message, places_of
from authz.runtime.flow import Flow

from .context import Metadata
from .handlers import Handler


class EndableStream(Stream, Protocol):
    """A streaming RPC that can be ended before its handler returns."""

    refusal: Refusal | None
    """Why the RPC must end, or ``None`` as long as it may go on."""


class Admission:
    """One admitted RPC: its caller, the end of its stream, and the check of its requests.

    Args:
        authorizer: the judge that admitted it.
        rules: how long streams may go on.
        hearing: the hearing of the RPC.
        handler: the handler that will serve it.
        principal: the verified caller.
        metadata: the metadata that the handler is shown.
        seconds: how long the decision took.

    Attributes:
        is_checked: whether there may be a request that the handler may not see.
        awaits_request: whether the RPC is allowed only when its one request has passed the check.
        may_end: whether the RPC is a stream that may have to end before its handler returns.
        is_limited: whether the RPC is allowed only when its stream has been opened.
        streams_requests: whether its handler gets an iterator of requests.

    """

    __slots__ = (
        *("_authorizer", "_hearing", "_is_confirmed", "_names", "_rules", "_seconds"),
        *("awaits_request", "is_checked", "is_limited", "may_end", "metadata", "principal", "streams_requests"),
    )

    def __init__(  # noqa: PLR0917 - one for each call, and names of arguments cost as much as all that it does
        self,
        authorizer: Authorizer,
        rules: StreamRules,
        hearing: Hearing,
        handler: Handler,
        principal: Principal,
        metadata: Metadata,
        seconds: float,
    ) -> None:
        self._authorizer, self._rules, self._hearing, self._seconds = authorizer, rules, hearing, seconds
        self.principal, self.metadata = principal, metadata
        self.streams_requests = streams_requests = handler.request_streaming
        is_stream = streams_requests or handler.response_streaming
        is_known = principal is not ANONYMOUS
        self._names = names = _may_name(handler.request_deserializer)
        self._is_confirmed = is_confirmed = is_known and not is_stream
        self.is_checked = is_checked = names or is_confirmed
        self.awaits_request = is_checked and not streams_requests
        self.may_end = is_stream and (is_known or names)
        self.is_limited = False

    def check(self, request: Any) -> None:
        """Check one request of the RPC.

        Raises:
            AuthzError: the handler may not see it.

        """
        principal = self.principal
        # The verdict came with the headers, and the request of a unary-unary method may come any time later, so look
        # at the verdict again. Streams are ended when something changes.
        if self._is_confirmed:
            self._hearing.confirm(principal)
        if self._names:
            check_message(request, principal=principal, tenant=principal.tenant)

    def allowed(self) -> None:
        """Tell the observers that the RPC is allowed."""
        self._hearing.allowed(self._seconds)

    def refused(self, error: BaseException) -> Refusal:
        """Tell the observers that the RPC is refused, and return what its caller sees."""
        return self._hearing.refused(error)

    def ended(self, error: Exception) -> Refusal:
        """Tell the observers that the stream must end, and return what its caller sees."""
        return self._hearing.ended(error)

    def refusal(self, request: Any) -> Refusal | None:
        """Check the only request of the RPC; return why it is refused, or ``None`` where the handler may see it."""
        try:
            if self.is_checked:
                self.check(request)
            if not self.is_limited:
                self.allowed()
        except Exception as error:  # noqa: BLE001 - whatever happened, the handler must not see the request
            return self.refused(error)
        return None

    def open(self, stream: Stream) -> Flow[None] | None:
        """Open ``stream``, which the judge ends from now on when it must end.

        Returns:
            ``None`` where it is open; otherwise the flow that opens it.

        Raises:
            ResourceExhaustedError: the organization has as many streams open as it may.
            UnavailableError: that cannot be said now.

        """
        is_endless = self.principal is ANONYMOUS
        call = self._hearing.call
        until = (
            math.inf
            if is_endless
            else self._rules.until(call.method, self._authorizer.verifier.ends_at(self.principal))
        )
        return self._authorizer.endings.open(stream, self.principal, until, call)

    def close(self, stream: Stream) -> None:
        """Forget ``stream``, which is over."""
        self._authorizer.streams.close(stream)

    def look(self, stream: Stream) -> None:
        """End ``stream``, before a message of it goes on, if it must end and has not been told yet."""
        self._authorizer.streams.look(stream)

    def end(self, stream: EndableStream, error: Exception) -> None:
        """End ``stream`` because of ``error``.

        Raises:
            Exception: ``error``, where the stream could not be ended.

        """
        self._authorizer.streams.end_one(stream, error)
        if stream.refusal is None:
            raise error


def _may_name(parse: Any) -> bool:
    # Generated code parses requests with a method of their class, so the class is known before a request comes.
    owner = getattr(parse, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, Message) and parse == owner.FromString:
        return places_of(parse.__self__) is not None
    # Any other function may return any message. Without a function requests stay bytes.
    return parse is not None
