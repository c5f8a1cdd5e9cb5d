"""The door of a ``grpc.server``."""

import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc

from authz.call.call import Call
from authz.call.peer import Peer
from authz.call.principal import ANONYMOUS, Principal, set_current_principal
from authz.call.refusal import Refusal
from authz.errors import PeerUnknownError, ResourceExhaustedError
from authz.issuer.verifier import Verifier
from authz.issuer.verifiers import Verifiers
from authz.judge.authorizer import Authorizer, as_authorizer
from authz.judge.hearing import Hearing
from authz.judge.mesh import MeshPeers
from authz.judge.streams import StreamExpiry, StreamRules
from authz.runtime import fork
from authz.runtime.flow import Flow, Wait, run
from interceptors.context import Metadata, TrustedCallDetails, TrustedContext
from interceptors.handlers import Behaviour, Handler, behaviour_of, with_behaviour
from interceptors.isolation import Check, check_of
from interceptors.relay import Relay
from interceptors.streams import Requests, Stream, abort, watched

Continuation = Callable[[grpc.HandlerCallDetails], Handler | None]


class AuthzInterceptor(grpc.ServerInterceptor):
    """Admit only calls that may be made, of every RPC kind, and tell their handlers who makes them.

    Handlers find the caller in ``context.invocation_metadata()`` (``x-org-id``
    and the other names of :class:`authz.TrustedMetadata`) and in
    :func:`authz.current_principal`. What a caller sends under those names
    never reaches them.

    Args:
        judge: a :class:`authz.Verifier`, or an :class:`authz.Authorizer` for more than defaults;
            may be left out where only the peers of ``trust`` are believed.
        public_methods: full names, such as ``/grpc.health.v1.Health/Check``, that anybody may call.
        trust: the proxies whose word is taken for who calls; by default nobody's.
        stream_expiry: ``token`` ends a stream when its token expires, ``never`` does not; or one of them by full
            method name, where ``*`` names all others.
        grace: seconds that a stream may go on after its token has expired.
        relay: run each handler of a stream on a thread of its own, so that also one that is blocked ends at once
            and with the right status. Without it such a handler's client sees CANCELLED, a second later.

    Raises:
        ConfigError: an argument that cannot work; the message names it.

    """

    def __init__(
        self,
        judge: Authorizer | Verifier | Verifiers | None = None,
        *,
        public_methods: Collection[str] = (),
        trust: MeshPeers | None = None,
        stream_expiry: StreamExpiry | Mapping[str, StreamExpiry] = "token",
        grace: float = 0.0,
        relay: bool = False,
    ) -> None:
        self._authorizer = as_authorizer(judge, public_methods, trust)
        self._streams = StreamRules(stream_expiry, grace)
        self._relay = relay
        self.after_fork()
        fork.register(self)

    def __repr__(self) -> str:
        """Say where it belongs: ``grpc.aio.server`` shows this in its error."""
        return "<interceptors.AuthzInterceptor, for grpc.server; that of grpc.aio.server is in interceptors.aio>"

    def intercept_service(
        self,
        continuation: Continuation,
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """See ``grpc.ServerInterceptor``."""
        # grpc runs this on its one polling thread: what waits here stops every RPC, and what escapes
        # from here, BaseException included, ends the server. So the flow takes its first step only.
        call = Call(method=handler_call_details.method, metadata=handler_call_details.invocation_metadata)
        hearing = Hearing(self._authorizer, call, "grpc")
        try:
            begun: tuple[Flow[Principal], Wait] | None = None
            try:
                flow = self._authorizer.authorize(call, hearing.evidence)
                begun = flow, next(flow)
            except StopIteration as done:
                return self._admitted(continuation, hearing, done.value)
            except PeerUnknownError:
                # Who is at the other end is to be read from the handler's context only.
                pass
            # Nobody has been found out yet, so others are told of nobody.
            return self._undecided(continuation(self._details(call, ANONYMOUS)), hearing, begun)
        except BaseException as error:  # noqa: BLE001 - see above
            return self._refused(hearing.refused(error))

    def after_fork(self) -> None:
        """Forget the thread that refuses, which is the parent's."""
        self._refusals = ThreadPoolExecutor(1, thread_name_prefix="authz-refusal")

    def _details(self, call: Call, principal: Principal) -> Any:
        return TrustedCallDetails(call.method, self._authorizer.trusted.believed(call.metadata, principal))

    def _admitted(self, continuation: Continuation, hearing: Hearing, principal: Principal) -> Handler | None:
        seconds = hearing.seconds
        details = self._details(hearing.call, principal)
        handler = continuation(details)
        # Not told before others have been asked: if they fail, the call is refused after all.
        if handler is None:
            hearing.allowed(seconds)
            return None
        return with_behaviour(handler, self._trusted(handler, hearing, principal, details.invocation_metadata, seconds))

    def _trusted(
        self, handler: Handler, hearing: Hearing, principal: Principal, metadata: Metadata, seconds: float
    ) -> Behaviour:
        """Return the behaviour of an admitted call, and tell of it, unless that takes a look at its only request."""
        behaviour = behaviour_of(handler)
        check = check_of(handler, principal, hearing)
        is_stream = handler.request_streaming or handler.response_streaming
        may_end = is_stream and (principal is not ANONYMOUS or check is not None)
        # Here already, so that who finds no room now does not wait for a thread of the pool.
        is_limited = may_end and self._authorizer.endings.are_limited(principal)
        tell = functools.partial(hearing.allowed, seconds)
        # Whether there is room is sure when the stream has been taken in, and not before.
        allow, allow_late = (_nothing, tell) if is_limited else (tell, _nothing)

        # grpc gives non-blocking handlers, which it knows by an attribute, one more argument to send replies with.
        def serve(request: Any, context: grpc.ServicerContext, *args: Any) -> Any:
            set_current_principal(principal)
            return behaviour(request, TrustedContext(context, metadata), *args)

        def serve_stream(request: Any, context: grpc.ServicerContext, *send: Any) -> Any:
            stream = Stream(context, hearing.ended, *send)
            self._open(stream, principal, hearing, context)
            allow_late()
            stream.check()
            if handler.request_streaming:
                request = Requests(request, stream, check, functools.partial(self._authorizer.streams.end_one, stream))
            if self._relay and not send:
                relay = Relay(stream, functools.partial(serve, request, context))
                if not context.add_callback(relay.stop):
                    relay.stop()
                replies = relay.replies() if handler.response_streaming else relay.reply()
            elif send:
                return None if stream.refusal is not None else serve(request, context, stream.send)
            else:
                replies = serve(request, context)
            if handler.response_streaming:
                return watched(replies, stream)
            stream.check()
            return replies

        trusted = functools.update_wrapper(serve_stream if may_end else serve, behaviour)
        if check is not None and not handler.request_streaming:
            return _checked(trusted, check, hearing, allow)
        allow()
        return trusted

    def _open(self, stream: Stream, principal: Principal, hearing: Hearing, context: grpc.ServicerContext) -> None:
        close = functools.partial(self._authorizer.streams.close, stream)
        try:
            self._authorizer.endings.open(stream, principal, self._until(hearing.call, principal), hearing.call)
        except ResourceExhaustedError as error:
            refusal = hearing.refused(error)
        else:
            return
        finally:
            # Not before: an RPC that ended in between would close a stream that is not open yet, and never again.
            if not context.add_callback(close):
                close()
        abort(context, refusal)

    def _until(self, call: Call, principal: Principal) -> float:
        if principal is ANONYMOUS:
            return math.inf
        return self._streams.until(call.method, self._authorizer.verifier.ends_at(principal))

    def _undecided(
        self, handler: Handler | None, hearing: Hearing, begun: tuple[Flow[Principal], Wait] | None
    ) -> Handler:
        # The behaviour runs on a thread of the server's pool, which may wait.
        def decide(context: grpc.ServicerContext) -> Behaviour:
            try:
                principal = self._decide(hearing, begun, context)
                metadata = self._authorizer.trusted.believed(hearing.call.metadata, principal)
                return self._trusted(handler or _UNKNOWN, hearing, principal, metadata, hearing.seconds)
            except BaseException as error:  # noqa: BLE001 - a verdict is owed, whatever happened
                refusal = hearing.refused(error)
            return abort(context, refusal)

        if handler is None:
            # Nor is one that nobody knows, to whoever is nobody.
            return with_behaviour(_UNKNOWN, lambda requests, context: decide(context)(requests, context))

        @functools.wraps(behaviour_of(handler))
        def decided(requests: Iterator[Any], context: grpc.ServicerContext, *args: Any) -> Any:
            trusted = decide(context)
            return trusted(requests if handler.request_streaming else _only(requests, context), context, *args)

        # As a stream the request is neither read nor parsed before the verdict.
        return with_behaviour(handler, decided, request_streaming=True)

    def _decide(
        self, hearing: Hearing, begun: tuple[Flow[Principal], Wait] | None, context: grpc.ServicerContext
    ) -> Principal:
        patience = context.time_remaining()
        if begun is not None:
            flow, wait = begun
            try:
                return run(flow, patience, waiting=wait)
            except PeerUnknownError:
                pass
        hearing.call = hearing.call._replace(peer=Peer.of(context.peer(), context.auth_context()))
        return run(self._authorizer.authorize(hearing.call, hearing.evidence), patience)

    def _refused(self, refusal: Refusal) -> Handler:
        def refuse(_requests: Any, context: grpc.ServicerContext) -> NoReturn:
            abort(context, refusal)

        # A thread of its own: a pool full of slow handlers must not keep refusals waiting.
        refuse.experimental_thread_pool = self._refusals  # type: ignore[attr-defined]
        # Serves all four kinds, and answers before the client has sent anything.
        return _terminator(refuse)


def _checked(behaviour: Behaviour, check: Check, hearing: Hearing, allow: Callable[[], None]) -> Behaviour:
    @functools.wraps(behaviour)
    def checked(request: Any, context: grpc.ServicerContext, *args: Any) -> Any:
        try:
            check(request)
            allow()
        except BaseException as error:  # noqa: BLE001 - whatever happened, the handler must not see it
            refusal = hearing.refused(error)
        else:
            return behaviour(request, context, *args)
        return abort(context, refusal)

    return checked


def _nothing() -> None:
    pass


def _unknown(_requests: Any, context: grpc.ServicerContext) -> NoReturn:
    context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


def _terminator(abort: Behaviour) -> Handler:
    # Whoever swallows the abort and replies something else has it discarded, rather than fail to serialize it.
    return grpc.stream_unary_rpc_method_handler(abort, response_serializer=lambda _reply: b"")


_UNKNOWN = _terminator(_unknown)


def _only(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
    for request in requests:
        return request
    return context.abort(grpc.StatusCode.UNIMPLEMENTED, "The method requires exactly one request message.")
