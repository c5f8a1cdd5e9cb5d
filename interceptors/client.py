"""Bearer tokens on the outgoing RPCs of a ``grpc`` channel."""

import weakref
from collections.abc import Iterator
from typing import Any

import grpc

from authz.issuer.credentials import unavailable
from authz.issuer.token_source import TokenSource
from authz.runtime.flow import run

from .bearer import Bearer, WatchedSource, has_authorization
from .calls import FailedCall
from .kinds import Continuation, EveryKind, Intercept, changed


def bearer_interceptors(source: TokenSource, *, insecure_channel: bool = False) -> tuple[EveryKind, ...]:
    """Return interceptors that put a token of ``source`` on every call: ``grpc.intercept_channel(channel, *these)``.

    A token that a server refuses with UNAUTHENTICATED is dropped, so that the next call has another one. A blocking
    call of a unary-unary method is made once more with that; futures and streams end as the server says.
    A call that brings its own ``authorization`` metadata keeps it.

    Args:
        source: where the tokens come from.
        insecure_channel: send them on any channel, one without TLS included, where others on the network can read
            them. By default gRPC itself refuses, with UNAUTHENTICATED, all but TLS and
            ``grpc.local_channel_credentials()``. With it, a stub waits until there is a token.

    """
    watched = WatchedSource(source)

    def intercept(*, is_repeatable: bool, is_stream: bool) -> Intercept:
        def begin(continuation: Continuation, details: grpc.ClientCallDetails, request: Any) -> Any:
            # A tuple, because the metadata is read more than once, and an iterator would be empty then.
            details = changed(details, metadata=tuple(details.metadata or ()))
            if has_authorization(details.metadata):
                return continuation(details, request)
            rpc = _Rpc(watched, details, insecure_channel=insecure_channel)
            return rpc.call(continuation, request, is_repeatable=is_repeatable, is_stream=is_stream)

        return begin

    return (
        EveryKind(
            unary_unary=intercept(is_repeatable=True, is_stream=False),
            unary_stream=intercept(is_repeatable=False, is_stream=True),
            stream_unary=intercept(is_repeatable=False, is_stream=False),
            stream_stream=intercept(is_repeatable=False, is_stream=True),
        ),
    )


class _Rpc(Bearer):
    def call(self, continuation: Continuation, request: Any, *, is_repeatable: bool, is_stream: bool) -> Any:
        """Make the RPC where the stub was called for its result, begin it elsewhere."""
        self._continuation, self._request = continuation, request
        try:
            run(self.begin(), self.time_remaining())
        except Exception as error:  # noqa: BLE001 - the stub needs a call, whatever a source raises
            return FailedCall(self.failure_code(error), str(unavailable(error)))
        call = self._send()
        if is_stream and not hasattr(call, "add_callback"):
            return self._read(call)
        # A future may be over already. One of grpc's is an iterator, which the outcome of a blocking call is not.
        if is_stream or isinstance(call, Iterator) or not call.done():
            self._watch(call)
            return call
        # The stub was called for its result, so this thread may wait.
        code = call.code()
        if is_repeatable and self.is_refusal(code) and run(self.begin_again(), self.time_remaining()):
            return self._send()
        self.ended(code)
        denial = self.denial(code)
        return call if denial is None else FailedCall(grpc.StatusCode.UNAUTHENTICATED, str(denial))

    def _send(self) -> Any:
        return self._continuation(changed(self._details, **self.attempt()._asdict()), self._request)

    def _read(self, messages: Iterator[Any]) -> Iterator[Any]:
        # Another interceptor, such as that of OpenTelemetry, has made a bare iterator of the stream.
        try:
            yield from messages
        except grpc.RpcError as error:
            self.ended(error.code())
            raise

    def _watch(self, call: Any) -> None:
        # Weak: grpc cancels a call when its caller has dropped the last reference to it.
        reference = weakref.ref(call)

        def over() -> None:
            call = reference()
            if call is not None:
                self.ended(call.code())

        if not call.add_callback(over):
            over()
