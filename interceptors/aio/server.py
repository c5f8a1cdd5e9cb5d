"""The interceptor of a ``grpc.aio.server``."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import grpc
import grpc.aio

from authz.call.peer import Peer
from authz.call.principal import ANONYMOUS, Principal, set_current_principal
from authz.call.refusal import Refusal
from authz.errors import ConfigError, PeerUnknownError
from authz.issuer.verifier import Verifier
from authz.issuer.verifiers import Verifiers
from authz.judge.authorizer import Authorizer, as_authorizer
from authz.judge.hearing import Hearing
from authz.judge.mesh import MeshPeers
from authz.judge.streams import StreamExpiry, StreamRules
from authz.runtime.flow import Flow, arun, is_given_up

from ..context import Metadata, arrived, shown
from ..handlers import Behaviour, Handler, status_of, with_behaviour
from .admission import AioAdmission, Sort, Undecided, sort_of
from .behaviours import decided, trusted
from .streams import AioStream
from .threads import SyncStreamOnAio

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
        public_methods: full names, such as ``/grpc.health.v1.Health/Check``, that need no token.
        trust: the proxies that are believed about who calls; none by default.
        stream_expiry: ``token`` ends a stream when its token expires, ``never`` does not; or one of them by full
            method name, where ``*`` stands for all other methods.
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
        self._rules = StreamRules(stream_expiry, grace)

    def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Coroutine[Any, Any, Handler | None]:
        """See ``grpc.aio.ServerInterceptor``.

        Raises:
            ConfigError: this interceptor was given to a ``grpc.server``. It cannot find out any earlier: such a
                server uses its interceptors only when the first call comes.

        """
        # No coroutine function: grpc.server, which has no loop, would take the coroutine for a handler and hang.
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigError(
                "interceptors.aio.AuthzInterceptor is for grpc.aio.server; grpc.server needs "
                "interceptors.AuthzInterceptor"
            ) from None
        return self._intercept(continuation, handler_call_details)

    async def _intercept(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler | None:
        call = arrived(details, self._authorizer.trusted)
        hearing = Hearing(self._authorizer, call, "grpc_aio")
        try:
            try:
                principal = hearing.at_once()
                if principal is None:
                    principal = await hearing.adecide()
            except PeerUnknownError:
                # Only the handler's context knows the peer of the connection.
                # The caller is not verified yet: inner interceptors see no trusted metadata.
                metadata = shown(call, ANONYMOUS, self._authorizer.trusted)
                return self._undecided(await continuation(_told(details, metadata)) or _UNKNOWN, hearing)
            seconds = hearing.seconds
            set_current_principal(principal)
            metadata = shown(call, principal, self._authorizer.trusted)
            handler = await continuation(_told(details, metadata))
            # The observers are told only now: where an inner interceptor fails, the call is refused after all.
            if handler is None:
                hearing.allowed(seconds)
                return None
            sort = sort_of(handler)
            stream = self._new_stream(handler, sort, hearing)
            admission = self._admission(handler, hearing, principal, metadata, seconds)
            beginning = admission.begin(stream, None)
            if beginning is not None:
                await arun(beginning)
            return with_behaviour(handler, trusted(handler, sort, admission))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and is_given_up():
                raise
            # An exception that escaped would leave the client without any status, or show it the exception's text.
            return _refused(hearing.refused(error))

    def _new_stream(self, handler: Handler, sort: Sort, hearing: Hearing) -> AioStream | None:
        if not (handler.request_streaming or handler.response_streaming):
            return None
        return (AioStream if sort.is_async else SyncStreamOnAio)(hearing, self._authorizer.streams)

    def _admission(
        self, handler: Handler, hearing: Hearing, principal: Principal, metadata: Metadata, seconds: float
    ) -> AioAdmission:
        return AioAdmission(
            self._authorizer,
            self._rules,
            hearing,
            handler,
            principal,
            metadata,
            seconds,
        )

    def _undecided(self, handler: Handler, hearing: Hearing) -> Handler:
        call = hearing.call
        sort = sort_of(handler)
        stream = self._new_stream(handler, sort, hearing)
        variables = contextvars.copy_context()

        def decide(context: Any) -> Flow[tuple[Principal, Behaviour]]:
            hearing.call = call._replace(peer=Peer.of(context.peer(), context.auth_context()))
            principal = yield from self._authorizer.authorize(hearing.call, hearing.evidence)
            metadata = shown(call, principal, self._authorizer.trusted)
            admission = self._admission(handler, hearing, principal, metadata, hearing.seconds)
            beginning = admission.begin(stream, variables)
            if beginning is not None:
                yield from beginning
            return principal, trusted(handler, sort, admission)

        behaviour = decided(handler, sort, Undecided(hearing, decide))
        return with_behaviour(handler, behaviour, request_streaming=True)


def _told(details: grpc.HandlerCallDetails, metadata: Metadata) -> Any:
    # What inner interceptors see. grpc.aio takes no other class than its own, which has no public name; should it be
    # built differently one day, inner interceptors see what the caller sent, and handlers still do not.
    try:
        return type(details)(details.method, metadata)  # type: ignore[call-arg]
    except TypeError:
        return details


def _refused(refusal: Refusal) -> Handler:
    async def refuse(_requests: Any, context: Any) -> None:
        await context.abort(*status_of(refusal))

    # Serves all four kinds, and answers before the client has sent anything.
    return grpc.stream_unary_rpc_method_handler(refuse)


async def _unknown(_requests: Any, context: Context) -> NoReturn:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


_UNKNOWN: Handler = grpc.stream_unary_rpc_method_handler(_unknown)
