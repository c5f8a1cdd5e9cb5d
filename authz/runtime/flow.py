"""One rule book for threads, tasks and callbacks: flows, and the three drivers that run them.

A flow is a generator that yields what it must wait for, returns its result
and raises an :class:`~authz.errors.AuthzError`.
Most flows finish without yielding, and so without waiting.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Generator, Hashable
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from authz.errors import OverloadedError
from authz.runtime.alarms import Alarms
from authz.runtime.clock import Moment

T = TypeVar("T")

# Timeouts for flows driven by callbacks.
_patience = Alarms("authz-patience")


class Places(Protocol):
    """Places that threads take before they wait; a ``threading.Semaphore`` is one."""

    def acquire(self, *, blocking: bool) -> bool:
        """Take a place; say whether there was one."""

    def release(self) -> None:
        """Give it back."""


class DeadlineError(TimeoutError):
    """The caller's own deadline passed before the time that the flow asked for."""


class Wait(NamedTuple):
    """What a flow yields: something to wait for.

    Args:
        future: what to wait for; other flows may share it, so it is never cancelled by one.
        seconds: how long to wait.
        threads: how many threads may wait, where any caller can make flows wait; a task, which costs no thread,
            takes no place. One thread too many ends in :class:`authz.errors.OverloadedError`.
        whose: the caller for which it waits, where callers share places; ``None`` as long as it is not known.

    """

    future: Future[Any]
    seconds: float
    threads: Places | None = None
    whose: Hashable = None


Flow = Generator[Wait, Any, T]
Done = Callable[[T | None, BaseException | None], None]


def pause(seconds: float) -> Flow[None]:
    """Wait, on whichever driver runs the flow."""
    try:
        yield Wait(Future(), seconds)
    except TimeoutError:
        return


def resumed(flow: Flow[T], wait: Wait) -> Flow[T]:
    """Finish, as a flow, one that has already yielded ``wait``."""
    try:
        while True:
            try:
                value = yield wait
            except Exception as error:  # noqa: BLE001 - the flow decides what it means
                wait = flow.throw(error)
            else:
                wait = flow.send(value)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        flow.close()


def run(flow: Flow[T], timeout: float | None = None, *, waiting: Wait | None = None) -> T:
    """Finish ``flow`` on this thread, which blocks while the flow waits.

    Args:
        flow: the flow, fresh, or one that has already yielded ``waiting``.
        timeout: seconds that each wait may last at the most, or ``None`` for what the flow asks; a wait that is
            cut short by it ends in a :class:`DeadlineError`.
        waiting: what the flow yielded, if another driver took its first step.

    """
    try:
        wait = waiting if waiting is not None else next(flow)
        while True:
            seconds = wait.seconds if timeout is None else min(wait.seconds, timeout)
            try:
                value = _result(wait, seconds)
            except Exception as error:  # noqa: BLE001 - the flow decides what it means
                is_cut_short = isinstance(error, TimeoutError) and seconds < wait.seconds and not wait.future.done()
                wait = flow.throw(DeadlineError() if is_cut_short else error)
            else:
                wait = flow.send(value)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        flow.close()


def _result(wait: Wait, seconds: float) -> Any:
    if wait.threads is None or wait.future.done():
        return wait.future.result(seconds)
    if not wait.threads.acquire(blocking=False):
        raise OverloadedError
    try:
        return wait.future.result(seconds)
    finally:
        wait.threads.release()


async def arun(flow: Flow[T], *, waiting: Wait | None = None) -> T:
    """Finish ``flow`` in this task, without blocking the loop while the flow waits.

    Args:
        flow: the flow, fresh, or one that has already yielded ``waiting``.
        waiting: what the flow yielded, if another driver took its first step.

    """
    try:
        wait = waiting if waiting is not None else next(flow)
        while True:
            # Shielded: cancelling one RPC must not cancel what other RPCs wait for.
            shared = asyncio.shield(asyncio.wrap_future(wait.future))
            try:
                value = await asyncio.wait_for(shared, wait.seconds)
            except asyncio.CancelledError:
                if not wait.future.cancelled() or is_given_up():
                    raise
                wait = flow.throw(CancelledError())
            except Exception as error:  # noqa: BLE001 - the flow decides what it means
                wait = flow.throw(error)
            else:
                wait = flow.send(value)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        flow.close()


def start(flow: Flow[T], done: Done[T], *, waiting: Wait | None = None) -> None:
    """Begin ``flow`` and return without waiting; the thread that completes what it waits for continues it.

    Args:
        flow: the flow, fresh, or one that has already yielded ``waiting``.
        done: called exactly once, perhaps before this returns, with the result, or with ``None`` and the error,
            of any class: the thread that goes on with a flow must not end with it.
        waiting: what the flow yielded, if another driver took its first step.

    """
    if waiting is None:
        _advance(flow, done, partial(next, flow))
    else:
        _go_on_after(waiting, flow, done)


def _advance(flow: Flow[T], done: Done[T], step: Callable[[], Wait]) -> None:
    try:
        wait = step()
    except StopIteration as end:
        result, error = end.value, None
    except BaseException as raised:  # noqa: BLE001 - see start: it would reach no caller, and end a thread
        result, error = None, raised
    else:
        _go_on_after(wait, flow, done)
        return
    done(result, error)


def _go_on_after(wait: Wait, flow: Flow[T], done: Done[T]) -> None:
    untouched = threading.Lock()

    def go_on(step: Callable[[], Wait]) -> None:
        # The future and the timeout may come at the same time; the first one wins.
        if untouched.acquire(blocking=False):
            if patience is not None:
                _patience.cancel(patience)
            _advance(flow, done, step)

    def arrived(future: Future[Any]) -> None:
        try:
            value = future.result()
        except Exception as error:  # noqa: BLE001 - the flow decides what it means
            go_on(partial(flow.throw, error))
        else:
            go_on(partial(flow.send, value))

    patience = None
    if not wait.future.done():
        at = Moment(monotonic=time.monotonic() + wait.seconds)
        patience = _patience.set(at, partial(go_on, partial(flow.throw, TimeoutError())))
    wait.future.add_done_callback(arrived)


def is_given_up() -> bool:
    """Say whether this task itself was cancelled, as when the client gave up, and not only what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def ends_request(error: BaseException) -> bool:
    """Say whether ``error`` is no reason to refuse a request, but the end of it: the client or the process gives up."""
    if isinstance(error, asyncio.CancelledError):
        return is_given_up()
    return isinstance(error, KeyboardInterrupt | SystemExit)
