"""The requests of a stream of a ``grpc.aio.server``, until it must end."""

from collections.abc import AsyncIterator, Awaitable
from typing import Any

from authz.call.refusal import Refusal

from ..admission import Admission
from ..handlers import status_of
from .streams import AioStream


class AioRequests:
    """The requests of a stream, each checked before its handler sees it.

    It passes on nothing else of grpc's own iterator, whose other methods would return unchecked requests.

    Args:
        requests: grpc's own iterator.
        stream: the stream that a refused request ends.
        admission: checks the requests.

    """

    __slots__ = ("_admission", "_requests", "_stream")

    def __init__(self, requests: Any, stream: AioStream, admission: Admission) -> None:
        self._requests = requests
        self._stream = stream
        self._admission = admission

    def __aiter__(self) -> "AioRequests":
        return self

    def __anext__(self) -> Awaitable[Any]:
        return self.checked(self._requests.__anext__())

    async def checked(self, reading: Awaitable[Any]) -> Any:
        """Return the request that is read, unless the handler may not see it."""
        request = await reading
        try:
            if self._admission.is_checked:
                self._admission.check(request)
        except Exception as error:  # noqa: BLE001 - whatever happened, the handler must not see the request
            self._admission.end(self._stream, error)
            await self._stream.never()
        if self._stream.must_end:
            await self._stream.never()
        return request


def refusing(context: Any, refusal: Refusal, *, is_generator: bool) -> Any:
    """Return a coroutine, or an async generator, that refuses the RPC in place of the handler's."""

    async def refuse() -> None:
        await context.abort(*status_of(refusal))

    async def refuse_with_generator() -> AsyncIterator[Any]:
        await refuse()
        yield  # a generator that yields nothing

    return refuse_with_generator() if is_generator else refuse()
