"""Bearer tokens on the outgoing RPCs of a ``grpc`` channel."""

from typing import Any

import grpc

from authz.issuer.credentials import unavailable
from authz.issuer.token_source import TokenSource
from authz.runtime.flow import run
from interceptors.bearer import Bearer, WatchedSource, has_authorization
from interceptors.calls import FailedCall, RepeatableCall, repeatable_messages
from interceptors.details import changed
from interceptors.kinds import Continuation, EveryKind, Intercept


def bearer_interceptors(source: TokenSource, *, insecure_channel: bool = False) -> tuple[EveryKind, ...]:
    """Return what puts a token of ``source`` on every call: ``grpc.intercept_channel(channel, *these)``.

    A call whose token a server refuses with UNAUTHENTICATED is made once more with another token, unless its
    requests are a stream or a response has come; the next call has another token in any case.
    A call that brings its own ``authorization`` metadata keeps it.

    Args:
        source: where the tokens come from.
        insecure_channel: send them on any channel, one without TLS included, which gives them to whoever
            listens. By default gRPC itself refuses, with UNAUTHENTICATED, all but TLS and
            ``grpc.local_channel_credentials()``. With it, a stub waits until there is a token.

    """
    watched = WatchedSource(source)

    def intercept(*, is_repeatable: bool, is_stream: bool) -> Intercept:
        def begin(continuation: Continuation, details: grpc.ClientCallDetails, request: Any) -> Any:
            # A tuple: whatever iterable it is, it is to be read more than once.
            details = changed(details, metadata=tuple(details.metadata or ()))
            if has_authorization(details.metadata):
                return continuation(details, request)
            rpc = _Rpc(watched, details, is_repeatable=is_repeatable, insecure_channel=insecure_channel)
            return rpc.call(continuation, request, is_stream=is_stream)

        return begin

    return (
        EveryKind(
            unary_unary=intercept(is_repeatable=True, is_stream=False),
            unary_stream=intercept(is_repeatable=True, is_stream=True),
            stream_unary=intercept(is_repeatable=False, is_stream=False),
            stream_stream=intercept(is_repeatable=False, is_stream=True),
        ),
    )


class _Rpc(Bearer):
    def call(self, continuation: Continuation, request: Any, *, is_stream: bool) -> Any:
        """Begin the RPC."""
        self._continuation, self._request = continuation, request
        try:
            run(self.begin(), self.time_remaining())
        except Exception as error:  # noqa: BLE001 - a call is owed, whatever a source raises
            return FailedCall(self.failure_code(error), str(unavailable(error)))
        call = self.send()
        if is_stream and not hasattr(call, "add_callback"):
            return repeatable_messages(call, self)
        if is_stream or not call.done():
            return RepeatableCall(call, self)
        # The stub was called for its result, so this thread may wait.
        if not self.is_refusal(call.code()):
            return self.denied(call.code()) or call
        if not self.is_repeatable:
            self.drop_token()
            return call
        return self.send() if self.has_replaced_token() else call

    def send(self) -> Any:
        """Begin an attempt, or make all of it where the stub was called for its result."""
        return self._continuation(changed(self._details, **self.attempt()._asdict()), self._request)

    def denied(self, code: grpc.StatusCode | None) -> FailedCall | None:
        """Return how the RPC ends, where gRPC has ended it with ``code`` because the issuer refuses us a token."""
        denial = self.denial(code)
        return None if denial is None else FailedCall(grpc.StatusCode.UNAUTHENTICATED, str(denial))

    def has_replaced_token(self) -> bool:
        """Get another token; say whether there is one, and time to use it."""
        return run(self.begin_again(), self.time_remaining())
