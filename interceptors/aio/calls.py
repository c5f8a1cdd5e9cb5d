"""The call that the caller of a unary-stream RPC gets, which may be made of two attempts."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Protocol

import grpc
import grpc.aio

from authz.runtime import telemetry

_tasks: "set[asyncio.Task[None]]" = set()


def when_ended(
    call: Any, look: Callable[[], Coroutine[Any, Any, None]], *, unless: Callable[[], bool] = lambda: False
) -> None:
    """Have ``look`` run in a task of its own as soon as ``call`` is over, unless by then there is no need for it.

    Args:
        call: a call of ``grpc.aio``.
        look: what to run.
        unless: is asked at the very moment of the end; true if nothing is left to be done.

    """
    loop = asyncio.get_running_loop()

    def ended(_call: Any) -> None:
        # A call may be collected, which ends it, after its loop.
        if not loop.is_closed() and not unless():
            task = loop.create_task(look())
            # The loop itself keeps only a weak reference.
            _tasks.add(task)
            task.add_done_callback(_tasks.discard)

    call.add_done_callback(ended)


def code_now(call: Any) -> grpc.StatusCode | None:
    """Return the status of ``call`` as it stands, without giving another task a turn; ``None`` if there is none."""
    asking = call.code()
    try:
        asking.send(None)
    except StopIteration as answer:
        code: grpc.StatusCode = answer.value
        return code
    except (grpc.RpcError, asyncio.CancelledError):
        return None
    asking.close()
    return None


class Attempts(Protocol):
    """What may follow the first attempt of an RPC."""

    def is_refusal(self, code: grpc.StatusCode | None) -> bool:
        """Say whether ``code`` means that a server has refused the token."""

    def drop_token(self) -> None:
        """Have the next RPC bear another token."""

    async def has_replaced_token(self) -> bool:
        """Get another token; say whether there is one, and time to use it."""

    async def send(self) -> Any:
        """Begin an attempt."""


# As Any: generic in the stubs, not subscriptable at run time.
_UnaryStreamCall: Any = grpc.aio.UnaryStreamCall


class RepeatableStream(_UnaryStreamCall):  # type: ignore[misc]
    """A stream of responses: that of the first attempt, or of the second if a server refused the token of the first.

    Args:
        first: the first attempt.
        attempts: what else can be done.

    """

    def __init__(self, first: Any, attempts: Attempts) -> None:
        self._call, self._attempts = first, attempts
        # Done when _call is the attempt that counts.
        self._final: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._messages: AsyncIterator[Any] | None = None
        when_ended(first, self._first_ended)

    def __getattr__(self, name: str) -> Any:
        # Older grpcio looks for its calls among the tasks when a channel closes, and knows them by a private name.
        return getattr(self._call, name)

    async def _first_ended(self) -> None:
        first = self._call
        try:
            if not self._attempts.is_refusal(await first.code()):
                return
            if self._final.done():
                self._attempts.drop_token()
            elif await self._attempts.has_replaced_token() and not self._final.done():
                second = await self._attempts.send()
                if not self._settle(second):
                    second.cancel()
        except Exception as error:  # noqa: BLE001 - whoever waits gets the first attempt
            telemetry.unforeseen("second attempt", error)
        finally:
            self._settle(first)

    def _settle(self, call: Any) -> bool:
        if self._final.done():
            return False
        self._call = call
        self._final.set_result(None)
        return True

    async def _decided(self) -> Any:
        # Shielded: others wait as well.
        await asyncio.shield(self._final)
        return self._call

    async def _receive(self) -> AsyncIterator[Any]:
        first = self._call
        try:
            async for message in first:
                # What has been delivered cannot be taken back.
                self._settle(first)
                yield message
        except grpc.RpcError:
            try:
                final = await self._decided()
            except asyncio.CancelledError:
                self.cancel()
                raise
            if final is first:
                raise
        else:
            return
        async for message in final:
            yield message

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._messages is None:
            self._messages = self._receive()
        return self._messages

    async def read(self) -> Any:
        """See ``grpc.aio.UnaryStreamCall.read``."""
        return await anext(aiter(self), grpc.aio.EOF)

    async def code(self) -> Any:
        """See ``grpc.aio.Call.code``."""
        return await (await self._decided()).code()

    async def details(self) -> Any:
        """See ``grpc.aio.Call.details``."""
        return await (await self._decided()).details()

    async def trailing_metadata(self) -> Any:
        """See ``grpc.aio.Call.trailing_metadata``."""
        return await (await self._decided()).trailing_metadata()

    async def debug_error_string(self) -> Any:
        """Return what grpc's own calls do."""
        return await (await self._decided()).debug_error_string()

    async def initial_metadata(self) -> Any:
        """See ``grpc.aio.Call.initial_metadata``."""
        first = self._call
        metadata = await first.initial_metadata()
        return metadata if not first.done() else await (await self._decided()).initial_metadata()

    async def wait_for_connection(self) -> None:
        """See ``grpc.aio.Call.wait_for_connection``."""
        first = self._call
        try:
            await first.wait_for_connection()
        except grpc.RpcError:
            final = await self._decided()
            if final is first:
                raise
            await final.wait_for_connection()

    def cancel(self) -> bool:
        """See ``grpc.aio.RpcContext.cancel``; a call that waits for a second attempt ends as the first did."""
        self._settle(self._call)
        return bool(self._call.cancel())

    def cancelled(self) -> bool:
        """See ``grpc.aio.RpcContext.cancelled``."""
        return self._final.done() and bool(self._call.cancelled())

    def done(self) -> bool:
        """See ``grpc.aio.RpcContext.done``."""
        return self._final.done() and bool(self._call.done())

    def time_remaining(self) -> Any:
        """See ``grpc.aio.RpcContext.time_remaining``."""
        return self._call.time_remaining()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """See ``grpc.aio.RpcContext.add_done_callback``."""

        def attach(_final: Any) -> None:
            self._call.add_done_callback(lambda _call: callback(self))

        if self._final.done():
            attach(None)
        else:
            self._final.add_done_callback(attach)
