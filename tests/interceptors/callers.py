"""Programs that call: each way of making calls through client interceptors, all four kinds alike."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import grpc
import grpc.aio

import interceptors
import interceptors.aio
from tests.interceptors import client
from tests.interceptors.client import DEADLINE, Outcome
from tests.interceptors.servers import Loop
from tests.interceptors.service import is_request_streaming, is_response_streaming, method

# Channels of one process share their connections otherwise.
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


class Begun:
    """A call under way."""

    def __init__(self, finish: Callable[[], Outcome], cancel: Callable[[], object]) -> None:
        self.finish, self.cancel = finish, cancel


class Connection:
    """A channel of either colour, with interceptors."""

    def __init__(self, begin: Callable[..., Begun]) -> None:
        self.begin = begin

    def call(self, kind: str, **options: Any) -> Outcome:
        return self.begin(kind, **options).finish()


@dataclass(frozen=True)
class Caller:
    """One way of making calls."""

    name: str
    package: ModuleType
    connect: Callable[..., contextlib.AbstractContextManager[Connection]]


def _request(kind: str, requests: Iterable[bytes] | None) -> Any:
    if is_request_streaming(kind):
        return iter([b""] if requests is None else requests)
    return b""


@contextlib.contextmanager
def _sync_channel(
    address: str, credentials: grpc.ChannelCredentials | None, interceptors: Sequence[Any]
) -> Iterator[grpc.Channel]:
    plain = (
        grpc.secure_channel(address, credentials, _OPTIONS) if credentials else grpc.insecure_channel(address, _OPTIONS)
    )
    with grpc.intercept_channel(plain, *interceptors) as channel:
        yield channel


@contextlib.contextmanager
def _blocking(
    _loop: Loop, address: str, credentials: grpc.ChannelCredentials | None, interceptors: Sequence[Any]
) -> Iterator[Connection]:
    with _sync_channel(address, credentials, interceptors) as channel:

        def call(kind: str, *, requests: Iterable[bytes] | None = None, **options: Any) -> Outcome:
            stub = getattr(channel, kind)(method(kind))
            messages: list[bytes] = []
            try:
                if is_response_streaming(kind):
                    outcome = stub(_request(kind, requests), **options)
                    messages.extend(outcome)
                else:
                    message, outcome = stub.with_call(_request(kind, requests), **options)
                    messages.append(message)
            except grpc.RpcError as error:
                outcome = error
            trailers = dict(outcome.trailing_metadata())
            return Outcome(outcome.code(), outcome.details(), messages, trailers)

        def begin(kind: str, **options: Any) -> Begun:
            options.setdefault("timeout", DEADLINE)
            return Begun(lambda: call(kind, **options), lambda: None)

        yield Connection(begin)


@contextlib.contextmanager
def _futures(
    _loop: Loop, address: str, credentials: grpc.ChannelCredentials | None, interceptors: Sequence[Any]
) -> Iterator[Connection]:
    with _sync_channel(address, credentials, interceptors) as channel:

        def begin(kind: str, *, requests: Iterable[bytes] | None = None, **options: Any) -> Begun:
            stub = getattr(channel, kind)(method(kind))
            options.setdefault("timeout", DEADLINE)
            call = (stub if is_response_streaming(kind) else stub.future)(_request(kind, requests), **options)
            return Begun(lambda: client.finish(kind, call), call.cancel)

        yield Connection(begin)


@contextlib.contextmanager
def _tasks(
    loop: Loop, address: str, credentials: grpc.ChannelCredentials | None, interceptors: Sequence[Any]
) -> Iterator[Connection]:
    async def open_channel() -> grpc.aio.Channel:
        if credentials:
            return grpc.aio.secure_channel(address, credentials, _OPTIONS, interceptors=interceptors)
        return grpc.aio.insecure_channel(address, _OPTIONS, interceptors=interceptors)

    channel = loop.run(open_channel())

    async def start(kind: str, requests: Iterable[bytes] | None, options: dict[str, Any]) -> Any:
        return getattr(channel, kind)(method(kind))(_request(kind, requests), **options)

    async def finish(kind: str, call: Any) -> Outcome:
        messages: list[bytes] = []
        with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
            if is_response_streaming(kind):
                async for message in call:
                    messages.append(message)  # noqa: PERF401 - what came before an error counts
            else:
                messages.append(await call)
        # dict() alone misreads a Metadata of some grpcio.
        trailers = dict(tuple(await call.trailing_metadata() or ()))
        return Outcome(await call.code(), await call.details(), messages, trailers)

    async def cancel(call: Any) -> bool:
        return bool(call.cancel())

    def begin(kind: str, *, requests: Iterable[bytes] | None = None, **options: Any) -> Begun:
        options.setdefault("timeout", DEADLINE)
        call = loop.run(start(kind, requests, options))
        return Begun(lambda: loop.run(finish(kind, call)), lambda: loop.run(cancel(call)))

    try:
        yield Connection(begin)
    finally:
        loop.run(channel.close())


CALLERS = (
    Caller("grpc", interceptors, _blocking),
    Caller("grpc-future", interceptors, _futures),
    Caller("aio", interceptors.aio, _tasks),
)
