"""The interceptor of a ``grpc.server``."""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc

from authz.call.peer import Peer
from authz.call.principal import ANONYMOUS, Principal
from authz.call.refusal import Refusal
from authz.errors import PeerUnknownError
from authz.issuer.verifier import Verifier
from authz.issuer.verifiers import Verifiers
from authz.judge.authorizer import Authorizer, as_authorizer
from authz.judge.hearing import Hearing
from authz.judge.mesh import MeshPeers
from authz.judge.streams import StreamExpiry, StreamRules
from authz.runtime import fork
from authz.runtime.flow import Flow, Wait, run

from .admission import Admission
from .behaviours import decided, trusted
from .context import Metadata, arrived, shown, told
from .handlers import Behaviour, Handler, with_behaviour
from .streams import abort

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
        public_methods: full names, such as ``/grpc.health.v1.Health/Check``, that need no token.
        trust: the proxies that are believed about who calls; none by default.
        stream_expiry: ``token`` ends a stream when its token expires, ``never`` does not; or one of them by full
            method name, where ``*`` stands for all other methods.
        grace: seconds that a stream may go on after its token has expired.
        relay: run each handler of a stream on a thread of its own, so that the RPC of a blocked handler ends at once
            and with the right status. Without it the client of such a handler sees CANCELLED, a second later.

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
        self._rules = StreamRules(stream_expiry, grace)
        self._relay = relay
        self.after_fork()
        fork.register(self)

    def __repr__(self) -> str:
        """Name the server that it is for: ``grpc.aio.server`` shows this in its error."""
        return "<interceptors.AuthzInterceptor, for grpc.server; that of grpc.aio.server is in interceptors.aio>"

    def intercept_service(
        self,
        continuation: Continuation,
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """See ``grpc.ServerInterceptor``."""
        # grpc runs this on its one polling thread: waiting here would stop every RPC, and an exception that escaped
        # from here, BaseException included, would end the server. So the flow takes its first step only.
        call = arrived(handler_call_details, self._authorizer.trusted)
        hearing = Hearing(self._authorizer, call, "grpc")
        try:
            begun: tuple[Flow[Principal], Wait] | None = None
            try:
                principal = hearing.at_once()
                if principal is not None:
                    return self._admitted(continuation, hearing, principal)
                flow = self._authorizer.authorize(call, hearing.evidence)
                begun = flow, next(flow)
            except StopIteration as done:
                return self._admitted(continuation, hearing, done.value)
            except PeerUnknownError:
                # Only the handler's context knows the peer of the connection.
                pass
            # The caller is not verified yet: inner interceptors see no trusted metadata.
            metadata = shown(call, ANONYMOUS, self._authorizer.trusted)
            return self._undecided(continuation(told(call.method, metadata)), hearing, begun)
        except BaseException as error:  # noqa: BLE001 - see above
            return self._refused(hearing.refused(error))

    def after_fork(self) -> None:
        """Replace the thread that refuses calls: a child process has none."""
        self._refusals = ThreadPoolExecutor(1, thread_name_prefix="authz-refusal")

    def _admitted(self, continuation: Continuation, hearing: Hearing, principal: Principal) -> Handler | None:
        seconds, call = hearing.seconds, hearing.call
        metadata = shown(call, principal, self._authorizer.trusted)
        handler = continuation(told(call.method, metadata))
        # The observers are told only now: where an inner interceptor fails, the call is refused after all.
        if handler is None:
            hearing.allowed(seconds)
            return None
        return with_behaviour(handler, self._trusted(handler, hearing, principal, metadata, seconds))

    def _trusted(
        self, handler: Handler, hearing: Hearing, principal: Principal, metadata: Metadata, seconds: float
    ) -> Behaviour:
        admission = Admission(
            self._authorizer,
            self._rules,
            hearing,
            handler,
            principal,
            metadata,
            seconds,
        )
        if admission.may_end:
            # Check the limit here, so that a refused stream does not occupy a thread of the pool.
            admission.is_limited = self._authorizer.endings.are_limited(principal)
        return trusted(handler, admission, relay=self._relay)

    def _undecided(
        self, handler: Handler | None, hearing: Hearing, begun: tuple[Flow[Principal], Wait] | None
    ) -> Handler:
        # The behaviour runs on a thread of the server's pool, and may block it.
        def decide(context: grpc.ServicerContext) -> Behaviour:
            try:
                principal = self._decide(hearing, begun, context)
                metadata = shown(hearing.call, principal, self._authorizer.trusted)
                return self._trusted(handler or _UNKNOWN, hearing, principal, metadata, hearing.seconds)
            except BaseException as error:  # noqa: BLE001 - the client must get a status, whatever happened
                refusal = hearing.refused(error)
            return abort(context, refusal)

        if handler is None:
            # An unknown method is refused like a known one until the caller is verified.
            return with_behaviour(_UNKNOWN, lambda requests, context: decide(context)(requests, context))
        # As a stream the request is neither read nor parsed before the verdict.
        return with_behaviour(handler, decided(handler, decide), request_streaming=True)

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

        # On a thread of its own: a pool full of slow handlers must not keep refusals waiting.
        refuse.experimental_thread_pool = self._refusals  # type: ignore[attr-defined]
        # A handler of this kind serves all four, and answers before the client has sent anything.
        return _terminator(refuse)


def _unknown(_requests: Any, context: grpc.ServicerContext) -> NoReturn:
    context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


def _terminator(abort: Behaviour) -> Handler:
    # An outer interceptor that catches the abort may return a reply of any type. grpc serializes that before it
    # discards it, which must not fail.
    return grpc.stream_unary_rpc_method_handler(abort, response_serializer=lambda _reply: b"")


_UNKNOWN = _terminator(_unknown)
