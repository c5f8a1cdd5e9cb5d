"""The service that the doors are tried with: one method of each kind, which answers who it thinks is calling."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from authz import ANONYMOUS, Principal, current_principal

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")

REPLIES = 2
"""How many messages a method that streams its response sends where it is not asked for more."""

Behaviour = Callable[..., Any]


def method(kind: str) -> str:
    return f"/tests.Guarded/{kind}"


def public_method(kind: str) -> str:
    return f"/tests.Public/{kind}"


PUBLIC_METHODS = tuple(map(public_method, KINDS))


def is_request_streaming(kind: str) -> bool:
    return kind.startswith("stream")


def is_response_streaming(kind: str) -> bool:
    return kind.endswith("stream")


@dataclass(frozen=True)
class Sight:
    """What a handler found."""

    principal: Principal
    metadata: tuple[Any, ...]

    def values(self, key: str) -> list[str | bytes]:
        return [entry.value for entry in self.metadata if entry.key == key]


@dataclass
class Witness:
    """What the handlers of one server have seen."""

    sights: list[Sight] = field(default_factory=list)
    parsed: list[bytes] = field(default_factory=list)

    def look(self, context: Any) -> None:
        self.sights.append(Sight(current_principal(), context.invocation_metadata()))

    def parse(self, data: bytes) -> bytes:
        self.parsed.append(data)
        return data

    def forget(self) -> None:
        self.sights.clear()
        self.parsed.clear()

    @property
    def sight(self) -> Sight:
        [sight] = self.sights
        return sight


def caller() -> bytes:
    """Return the organization that calls, for use as a reply; asked anew for every message."""
    principal = current_principal()
    return b"anonymous" if principal is ANONYMOUS else principal.org_id.encode()


def sync_behaviours(witness: Witness, answer: Callable[[], Any] = caller) -> dict[str, Behaviour]:
    def unary_unary(_request: bytes, context: Any) -> bytes:
        witness.look(context)
        return answer()

    def unary_stream(_request: bytes, context: Any) -> Iterator[bytes]:
        witness.look(context)
        for _ in range(REPLIES):
            yield answer()

    def stream_unary(requests: Iterator[bytes], context: Any) -> bytes:
        witness.look(context)
        for _ in requests:
            pass
        return answer()

    def stream_stream(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        witness.look(context)
        for _ in requests:
            yield answer()

    return _by_kind(unary_unary, unary_stream, stream_unary, stream_stream)


def async_behaviours(witness: Witness, answer: Callable[[], Any] = caller) -> dict[str, Behaviour]:
    async def unary_unary(_request: bytes, context: Any) -> bytes:
        witness.look(context)
        return answer()

    async def unary_stream(_request: bytes, context: Any) -> AsyncIterator[bytes]:
        witness.look(context)
        for _ in range(REPLIES):
            yield answer()

    async def stream_unary(requests: AsyncIterator[bytes], context: Any) -> bytes:
        witness.look(context)
        async for _ in requests:
            pass
        return answer()

    async def stream_stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        witness.look(context)
        async for _ in requests:
            yield answer()

    return _by_kind(unary_unary, unary_stream, stream_unary, stream_stream)


def read_write_behaviours(witness: Witness, answer: Callable[[], Any] = caller) -> dict[str, Behaviour]:
    """Coroutines that read and write; a unary-unary method has neither, so it is the usual one."""

    async def unary_stream(_request: bytes, context: Any) -> None:
        witness.look(context)
        for _ in range(REPLIES):
            await context.write(answer())

    async def stream_unary(_requests: Any, context: Any) -> bytes:
        witness.look(context)
        while await context.read() is not grpc.aio.EOF:
            pass
        return answer()

    async def stream_stream(_requests: Any, context: Any) -> None:
        witness.look(context)
        while await context.read() is not grpc.aio.EOF:
            await context.write(answer())

    return _by_kind(async_behaviours(witness, answer)["unary_unary"], unary_stream, stream_unary, stream_stream)


def _by_kind(*behaviours: Behaviour) -> dict[str, Behaviour]:
    return dict(zip(KINDS, behaviours, strict=True))


def handler(
    kind: str,
    behaviour: Behaviour,
    parse: Callable[[bytes], Any] | None = None,
    serialize: Callable[[Any], bytes] | None = None,
) -> Any:
    """Return a method handler; of raw bytes, unless they are parsed and serialized."""
    return getattr(grpc, f"{kind}_rpc_method_handler")(
        behaviour, request_deserializer=parse, response_serializer=serialize
    )


def handlers(behaviours: Mapping[str, Behaviour], witness: Witness) -> dict[str, Any]:
    """Return every behaviour as a guarded and as a public method."""
    by_kind = {kind: handler(kind, behaviour, witness.parse) for kind, behaviour in behaviours.items()}
    guarded = {method(kind): one for kind, one in by_kind.items()}
    return {**guarded, **{public_method(kind): one for kind, one in by_kind.items()}}


def expected_replies(kind: str, reply: bytes, requests: Sequence[bytes] = (b"",)) -> list[bytes]:
    """Return what a method of that kind answers to ``requests``."""
    if not is_response_streaming(kind):
        return [reply]
    return [reply] * (len(requests) if is_request_streaming(kind) else REPLIES)
