"""Where the function of a directory runs: a plain one on a few threads, an async one on an event loop."""

import asyncio
import contextlib
import inspect
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import Context
from functools import partial
from typing import Any, Protocol, cast

from authz.organizations.organization import Organization
from authz.runtime import fork
from authz.runtime.asking import NoAnswerError

LookUp = Callable[[str], Organization | None]
"""Returns what is known of an organization; it may block for some seconds."""

AsyncLookUp = Callable[[str], Coroutine[Any, Any, Organization | None]]
"""The same as a coroutine."""

_AT_A_TIME = 8
# A thread cannot be ended from outside, a task can.
_LONGEST = 30.0


class LookUps(Protocol):
    """Runs the function of a directory."""

    def ask(self, org_id: str) -> "Future[Organization | None]":
        """Begin to look an organization up; the answer is cancelled if that is not worth it any more.

        Raises:
            RuntimeError: no thread can be started, or the event loop is closed.

        """

    def is_lost(self, org_id: str) -> bool:
        """Say whether the answer about an organization cannot come any more, because its event loop is closed."""

    def close(self) -> None:
        """Begin nothing more, and end what can be ended."""


def look_ups(look_up: LookUp | AsyncLookUp, is_due: Callable[[], bool]) -> LookUps:
    """Return what runs ``look_up``.

    Args:
        look_up: the function.
        is_due: says, when it is an organization's turn, whether to ask about it still.

    """
    if inspect.iscoroutinefunction(look_up) or inspect.iscoroutinefunction(getattr(look_up, "__call__", None)):  # noqa: B004 - an object may have an async one
        return _Tasks(cast("AsyncLookUp", look_up), is_due)
    return _Threads(cast("LookUp", look_up), is_due)


class _Threads:
    def __init__(self, look_up: LookUp, is_due: Callable[[], bool]) -> None:
        self._look_up, self._is_due = look_up, is_due
        # It starts no thread before there is something to do.
        self._pool = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="authz-directory")

    def ask(self, org_id: str) -> "Future[Organization | None]":
        return self._pool.submit(self._ask, org_id)

    def is_lost(self, org_id: str) -> bool:  # noqa: ARG002 - as the protocol has it
        return False

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, org_id: str) -> Organization | None:
        if not self._is_due():
            raise CancelledError
        answer = self._look_up(org_id)
        if inspect.iscoroutine(answer):
            answer.close()
            raise NoAnswerError("look_up returns a coroutine; define it with async def", is_ours=True)
        return answer


class _Tasks:
    """Runs it on the event loop of the call that asks, where the clients that it uses belong.

    A call on another thread uses the loop that asked last. Where there is none, as in servers of threads, there is a
    thread with a loop for it.
    """

    def __init__(self, look_up: AsyncLookUp, is_due: Callable[[], bool]) -> None:
        self._look_up, self._is_due = look_up, is_due
        self._loops: dict[str, asyncio.AbstractEventLoop] = {}
        # An event loop itself would let them be collected.
        self._tasks: set[asyncio.Task[Any]] = set()
        self._turns = weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]()
        self._home: asyncio.AbstractEventLoop | None = None
        self._own: asyncio.AbstractEventLoop | None = None
        self._lock = fork.Lock()

    def ask(self, org_id: str) -> "Future[Organization | None]":
        answer: Future[Organization | None] = Future()
        try:
            self._home = loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = self._elsewhere()
            self._loops[org_id] = loop
            loop.call_soon_threadsafe(self._begin, org_id, answer)
        else:
            self._loops[org_id] = loop
            self._begin(org_id, answer)
        return answer

    def is_lost(self, org_id: str) -> bool:
        loop = self._loops.get(org_id)
        return loop is not None and loop.is_closed()

    def close(self) -> None:
        for task in list(self._tasks):
            with contextlib.suppress(RuntimeError):
                task.get_loop().call_soon_threadsafe(task.cancel)
        if self._own is not None:
            _stop(self._own)

    def _elsewhere(self) -> asyncio.AbstractEventLoop:
        if self._home is not None and self._home.is_running():
            return self._home
        with self._lock:
            if self._own is None or self._own.is_closed():
                self._own = loop = asyncio.new_event_loop()
                threading.Thread(target=_run, args=(loop,), name="authz-directory", daemon=True).start()
                weakref.finalize(self, _stop, loop)
            return self._own

    def _begin(self, org_id: str, answer: "Future[Organization | None]") -> None:
        loop = asyncio.get_running_loop()
        # Without the context of the call that asks: the answer is for all.
        task = loop.create_task(self._ask(org_id, answer), context=Context())
        self._tasks.add(task)
        task.add_done_callback(partial(self._end, org_id, answer))

    async def _ask(self, org_id: str, answer: "Future[Organization | None]") -> None:
        turns = self._turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(_AT_A_TIME))
        async with turns:
            if not self._is_due():
                answer.cancel()
                return
            # Answered within the turn: the next one is to know whether this one has failed.
            try:
                organization = await self._within_limit(org_id)
            except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - SystemExit, too: it would end the event loop, and the server
                answer.set_exception(error)
            else:
                answer.set_result(organization)

    async def _within_limit(self, org_id: str) -> Organization | None:
        try:
            async with asyncio.timeout(_LONGEST) as limit:
                return await self._look_up(org_id)
        except TimeoutError:
            if not limit.expired():
                raise
            raise NoAnswerError("timeout", is_outage=True) from None

    def _end(self, org_id: str, answer: "Future[Organization | None]", task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._loops.pop(org_id, None)
        # Where the task was cancelled there is no answer yet.
        answer.cancel()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
        loop.run_until_complete(_end_tasks())
    finally:
        loop.close()


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    # It may have ended already.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(loop.stop)
