"""Calls from a real client, all four kinds alike."""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from tests.interceptors.service import is_request_streaming, is_response_streaming, method

DEADLINE = 10.0
"""Seconds for one call: far more than any takes, so whatever ends by it was hanging."""

Metadata = Iterable[tuple[str, str | bytes]]


class Silence:
    """A request stream that brings nothing before the test is over."""

    def __init__(self) -> None:
        self._over = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        self._over.wait()
        yield from ()

    def end(self) -> None:
        self._over.set()


@dataclass(frozen=True)
class Outcome:
    """How a call ended."""

    code: grpc.StatusCode
    details: str
    messages: list[bytes]
    trailers: dict[str, str | bytes]

    @property
    def status(self) -> Status:
        return Status.FromString(self.trailers["grpc-status-details-bin"])

    @property
    def reason(self) -> str:
        return self._detail(ErrorInfo()).reason

    @property
    def retry_delay(self) -> int:
        return self._detail(RetryInfo()).retry_delay.seconds

    def _detail(self, message: Any) -> Any:
        [packed] = [packed for packed in self.status.details if packed.Is(message.DESCRIPTOR)]
        packed.Unpack(message)
        return message

    def leaks(self, secret: str) -> bool:
        """Say whether ``secret`` stands anywhere in what the client got."""
        return secret.encode() in repr((self.details, self.trailers, self.messages)).encode()


def start(
    channel: grpc.Channel,
    kind: str,
    name: str | None = None,
    *,
    metadata: Metadata = (),
    requests: Iterable[bytes] = (b"",),
    timeout: float = DEADLINE,
) -> Any:
    """Begin a call."""
    stub = getattr(channel, kind)(name or method(kind))
    call = stub if is_response_streaming(kind) else stub.future
    request = iter(requests) if is_request_streaming(kind) else next(iter(requests))
    return call(request, metadata=tuple(metadata), timeout=timeout)


def finish(kind: str, call: Any) -> Outcome:
    """Wait for the end of a call."""
    messages: list[bytes] = []
    try:
        if is_response_streaming(kind):
            messages.extend(call)
        else:
            messages.append(call.result())
    except (grpc.RpcError, grpc.FutureCancelledError):
        pass
    return Outcome(
        call.code(), call.details(), messages, {entry.key: entry.value for entry in call.trailing_metadata()}
    )


def call(channel: grpc.Channel, kind: str, name: str | None = None, **options: Any) -> Outcome:
    """Make a call; see :func:`start`."""
    return finish(kind, start(channel, kind, name, **options))


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def details(code: grpc.StatusCode, *messages: Message) -> bytes:
    """Return a serialized ``google.rpc.Status``."""
    status = Status(code=code.value[0], message="from the handler")
    for message in messages:
        status.details.add().Pack(message)
    return status.SerializeToString()
