"""How a call of ``grpc.aio`` ends, for an interceptor that has handed it to its caller already."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

_tasks: "set[asyncio.Task[None]]" = set()


def when_ended(call: Any, told: Callable[[grpc.StatusCode | None], bool], *, has_one_response: bool) -> None:
    """Call ``told`` with the status of ``call`` when that has ended, and once more if that did not say enough.

    Where a refusal meets a request on its way, a call may show INTERNAL instead of the refusal: one with a stream of
    responses shows the refusal first and INTERNAL later; one with a single response shows the refusal when awaited.

    Args:
        call: a call of ``grpc.aio``.
        told: returns whether the status says enough.
        has_one_response: whether the call has one response, and not a stream of them.

    """
    loop = asyncio.get_running_loop()

    async def look() -> None:
        if has_one_response:
            with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
                await call
        told(await call.code())

    def ended(_call: Any) -> None:
        # The garbage collector may end a call after its loop was closed.
        if not loop.is_closed() and not told(_code_now(call)):
            task = loop.create_task(look())
            # The loop itself keeps only a weak reference.
            _tasks.add(task)
            task.add_done_callback(_tasks.discard)

    call.add_done_callback(ended)


def _code_now(call: Any) -> grpc.StatusCode | None:
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
