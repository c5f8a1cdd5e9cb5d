"""The door of a ``grpc.aio.server``."""

import asyncio
import contextvars
import functools
import math
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import grpc
import grpc.aio

from authz.call.call import Call
from authz.call.peer import Peer
from authz.call.principal import ANONYMOUS, Principal, set_current_principal
from authz.call.refusal import Refusal
from authz.errors import ConfigError, PeerUnknownError, ResourceExhaustedError
from authz.issuer.verifier import Verifier
from authz.issuer.verifiers import Verifiers
from authz.judge.authorizer import Authorizer, as_authorizer
from authz.judge.hearing import Hearing
from authz.judge.mesh import MeshPeers
from authz.judge.streams import StreamExpiry, StreamRules
from authz.runtime.flow import arun, is_given_up, run
from interceptors.aio.behaviours import Admission, Sort, decided, sort_of, trusted
from interceptors.aio.requests import RequestRule
from interceptors.aio.streams import Stream, StreamOnThreads
from interceptors.context import Metadata
from interceptors.handlers import Behaviour, Handler, behaviour_of, with_behaviour
from interceptors.isolation import check_of

if TYPE_CHECKING:
    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
else:
    # Generic in the stubs, not subscriptable at run time.
    Context = grpc.aio.ServicerContext

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]


class AuthzInterceptor(grpc.aio.ServerInterceptor):
    """Admit only calls that may be made, of every RPC kind, and tell their handlers who makes them.

    Handlers find the caller in ``context.invocation_metadata()`` (``x-org-id``
    and the other names of :class:`authz.TrustedMetadata`) and in
    :func:`authz.current_principal`. What a caller sends under those names
    never reaches them. Handlers may be coroutines, async generators or plain functions.

    Args:
        judge: a :class:`authz.Verifier`, or an :class:`authz.Authorizer` for more than defaults;
            may be left out where only the peers of ``trust`` are believed.
        public_methods: full names, such as ``/grpc.health.v1.Health/Check``, that anybody may call.
        trust: the proxies whose word is taken for who calls; by default nobody's.
        stream_expiry: ``token`` ends a stream when its token expires, ``never`` does not; or one of them by full
            method name, where ``*`` names all others.
        grace: seconds that a stream may go on after its token has expired.

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
    ) -> None:
        self._authorizer = as_authorizer(judge, public_methods, trust)
        self._streams = StreamRules(stream_expiry, grace)

    def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Coroutine[Any, Any, Handler | None]:
        """See ``grpc.aio.ServerInterceptor``.

        Raises:
            ConfigError: this interceptor was given to a ``grpc.server``. It cannot say so any earlier: such a
                server looks at its interceptors when the first call comes.

        """
        # No coroutine function: grpc.server, which has no loop, would take the coroutine for a handler, and hang.
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigError(
                "interceptors.aio.AuthzInterceptor is for grpc.aio.server; grpc.server needs "
                "interceptors.AuthzInterceptor"
            ) from None
        return self._intercept(continuation, handler_call_details)

    async def _intercept(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler | None:
        call = Call(method=details.method, metadata=details.invocation_metadata)
        hearing = Hearing(self._authorizer, call, "grpc_aio")
        try:
            try:
                principal = await arun(self._authorizer.authorize(call, hearing.evidence))
            except PeerUnknownError:
                # Who is at the other end is to be read from the handler's context only.
                # Nobody has been found out yet, so others are told of nobody.
                metadata = self._authorizer.trusted.believed(call.metadata, ANONYMOUS)
                return self._undecided(await continuation(_told(details, metadata)) or _UNKNOWN, hearing)
            seconds = hearing.seconds
            set_current_principal(principal)
            metadata = self._authorizer.trusted.believed(call.metadata, principal)
            handler = await continuation(_told(details, metadata))
            # Not told before others have been asked: if they fail, the call is refused after all.
            if handler is None:
                hearing.allowed(seconds)
                return None
            sort = sort_of(handler)
            stream = self._new_stream(handler, sort, hearing)
            admission = self._admission(handler, hearing, principal, metadata, stream, seconds=seconds)
            return with_behaviour(handler, trusted(behaviour_of(handler), sort, admission))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and is_given_up():
                raise
            # Whatever else escaped would leave the client without any status, or tell it the exception's text.
            return _refused(hearing.refused(error))

    def _new_stream(self, handler: Handler, sort: Sort, hearing: Hearing) -> Stream | None:
        if not (handler.request_streaming or handler.response_streaming):
            return None
        stream = Stream(hearing.ended) if sort.is_async else StreamOnThreads(hearing.ended)
        stream.when_over(functools.partial(self._authorizer.streams.close, stream))
        return stream

    def _admission(
        self,
        handler: Handler,
        hearing: Hearing,
        principal: Principal,
        metadata: Metadata,
        stream: Stream | None,
        *,
        seconds: float,
        variables: contextvars.Context | None = None,
    ) -> Admission:
        """Return what the call brings along, and tell that it is allowed, unless that takes a look at its request."""
        rule = self._rule(handler, hearing, principal, seconds)
        if principal is ANONYMOUS and rule is None:
            stream = None
        if stream is not None:
            until = self._until(hearing.call, principal)
            call = hearing.call
            self._authorizer.endings.open(stream, principal, until, call)
            stream.reopen = functools.partial(self._reopen, stream, principal, until, call)
            if stream.is_over:
                # While a thread was deciding; whoever closes streams has been here before.
                self._authorizer.streams.close(stream)
        if rule is None or rule.is_stream:
            hearing.allowed(seconds)
        return Admission(principal, metadata, stream, rule, variables)

    def _reopen(self, stream: Stream, principal: Principal, until: float, call: Call) -> None:
        try:
            self._authorizer.endings.open(stream, principal, until, call)
        except ResourceExhaustedError as error:
            # It was over in between, and another one has its place.
            self._authorizer.streams.end_one(stream, error)

    def _until(self, call: Call, principal: Principal) -> float:
        if principal is ANONYMOUS:
            return math.inf
        return self._streams.until(call.method, self._authorizer.verifier.ends_at(principal))

    def _rule(self, handler: Handler, hearing: Hearing, principal: Principal, seconds: float) -> RequestRule | None:
        check = check_of(handler, principal, hearing)
        if check is None:
            return None
        return RequestRule(
            check,
            is_stream=bool(handler.request_streaming),
            allow=functools.partial(hearing.allowed, seconds),
            refuse=hearing.refused,
            end=self._authorizer.streams.end_one,
        )

    def _undecided(self, handler: Handler, hearing: Hearing) -> Handler:
        call = hearing.call
        sort = sort_of(handler)
        stream = self._new_stream(handler, sort, hearing)
        variables = contextvars.copy_context()

        def admitted(principal: Principal) -> Behaviour:
            metadata = self._authorizer.trusted.believed(call.metadata, principal)
            admission = self._admission(
                handler, hearing, principal, metadata, stream, seconds=hearing.seconds, variables=variables
            )
            return trusted(behaviour_of(handler), sort, admission)

        async def decide(context: Any) -> Behaviour:
            try:
                hearing.call = _with_peer(call, context)
                principal = await arun(self._authorizer.authorize(hearing.call, hearing.evidence))
                set_current_principal(principal)
                return admitted(principal)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                if isinstance(error, asyncio.CancelledError) and is_given_up():
                    raise
                refusal = hearing.refused(error)
            return await _abort(context, refusal)

        def decide_on_thread(context: Any) -> Behaviour | None:
            try:
                # Not in this thread's own variables, which outlive the RPC: behaviours on threads bring theirs.
                hearing.call = _with_peer(call, context)
                flow = self._authorizer.authorize(hearing.call, hearing.evidence)
                return admitted(run(flow, context.time_remaining()))
            except BaseException as error:  # noqa: BLE001 - a verdict is owed, whatever happened
                refusal = hearing.refused(error)
            context.abort(grpc.StatusCode[refusal.code.name], refusal.message, refusal.trailers)
            return None

        return with_behaviour(handler, decided(handler, sort, decide, decide_on_thread), request_streaming=True)


def _told(details: grpc.HandlerCallDetails, metadata: Metadata) -> Any:
    # What interceptors after ours are told. grpc.aio takes no other class than its own, which has no public name;
    # should it be built differently one day, they are told what the caller sent, and handlers still are not.
    try:
        return type(details)(details.method, metadata)  # type: ignore[call-arg]
    except TypeError:
        return details


def _with_peer(call: Call, context: Any) -> Call:
    return call._replace(peer=Peer.of(context.peer(), context.auth_context()))


def _refused(refusal: Refusal) -> Handler:
    async def refuse(_requests: Any, context: Any) -> NoReturn:
        await _abort(context, refusal)

    # Serves all four kinds, and answers before the client has sent anything.
    return grpc.stream_unary_rpc_method_handler(refuse)


async def _abort(context: Context, refusal: Refusal) -> NoReturn:
    await context.abort(grpc.StatusCode[refusal.code.name], refusal.message, refusal.trailers)


async def _unknown(_requests: Any, context: Context) -> NoReturn:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


_UNKNOWN: Handler = grpc.stream_unary_rpc_method_handler(_unknown)
