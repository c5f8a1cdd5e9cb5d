"""A service that lets nobody in whose token it refuses, and notes who came."""

import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc

from tests.interceptors.service import KINDS, handler, method

REFUSAL = "not with this token"


class Visit(NamedTuple):
    """What a handler found."""

    tokens: list[str]
    metadata: dict[str, str | bytes]
    context: grpc.ServicerContext


class Gate:
    """Serves one method of each kind; the responses are the token that came."""

    def __init__(self) -> None:
        self.visits: list[Visit] = []
        self.refuses: Callable[[str], bool] = lambda _token: False
        self.is_late = False
        """Whether a token is refused only after the first response."""
        self.before: Callable[[], object] = lambda: None
        self.during: Callable[[], object] = lambda: None
        self._lock = threading.Lock()

    @property
    def tokens(self) -> list[list[str]]:
        """The tokens of every visit."""
        return [visit.tokens for visit in self.visits]

    def handlers(self) -> dict[str, Any]:
        behaviours = (self._unary_unary, self._unary_stream, self._stream_unary, self._stream_stream)
        return {method(kind): handler(kind, one) for kind, one in zip(KINDS, behaviours, strict=True)}

    def _enter(self, context: grpc.ServicerContext) -> bytes:
        metadata = context.invocation_metadata()
        tokens = [str(value).removeprefix("Bearer ") for key, value in metadata if key == "authorization"]
        with self._lock:
            self.visits.append(Visit(tokens, dict(metadata), context))
        self.before()
        return " ".join(tokens).encode()

    def _judge(self, token: bytes, context: grpc.ServicerContext) -> None:
        if self.refuses(token.decode()):
            context.set_trailing_metadata((("x-refused", "yes"),))
            context.abort(grpc.StatusCode.UNAUTHENTICATED, REFUSAL)

    def _unary_unary(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        token = self._enter(context)
        self._judge(token, context)
        context.send_initial_metadata((("x-begun", "yes"),))
        self.during()
        return token

    def _unary_stream(self, _request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        token = self._enter(context)
        if self.is_late:
            yield token
        self._judge(token, context)
        context.send_initial_metadata((("x-begun", "yes"),))
        yield token
        self.during()
        yield token

    def _stream_unary(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        token = self._enter(context)
        self._judge(token, context)
        for _ in requests:
            self.during()
        return token

    def _stream_stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        token = self._enter(context)
        self._judge(token, context)
        for _ in requests:
            self.during()
            yield token
