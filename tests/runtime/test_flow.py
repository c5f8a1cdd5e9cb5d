import asyncio
import threading
from concurrent.futures import CancelledError, Future

import pytest

from authz.errors import OverloadedError
from authz.runtime.flow import DeadlineError, Wait, arun, pause, resumed, run, start

PATIENCE = 120.0


class Ending:
    """The outcome of a flow that was started."""

    def __init__(self, flow):
        self.outcomes, self.threads = [], []
        self._is_over = threading.Event()
        start(flow, self._done)

    def _done(self, result, error):
        self.outcomes.append((result, error))
        self.threads.append(threading.current_thread())
        self._is_over.set()

    def wait(self):
        assert self._is_over.wait(PATIENCE), "it never ended"
        [outcome] = self.outcomes
        return outcome


def started(flow):
    """Drive ``flow`` as the others do."""
    result, error = Ending(flow).wait()
    if error is not None:
        raise error
    return result


EACH = pytest.mark.parametrize(
    "drive",
    [
        pytest.param(run, id="run"),
        pytest.param(lambda flow: asyncio.run(arun(flow)), id="arun"),
        pytest.param(started, id="start"),
    ],
)


def done(value):
    future = Future()
    future.set_result(value)
    return future


def failed(error):
    future = Future()
    future.set_exception(error)
    return future


def adding(*waits):
    total = 0
    for wait in waits:
        total += yield wait
    return total


def outcome_of(wait):
    """Return what the one wait raised, as a flow."""
    try:
        yield wait
    except Exception as error:  # noqa: BLE001 - that is what is looked at
        return error
    return None


def immediate():
    return 5
    yield


@EACH
def test_a_flow_that_never_waits_returns(drive):
    assert drive(immediate()) == 5


@EACH
def test_results_are_sent_into_the_flow(drive):
    assert drive(adding(Wait(done(1), 1.0), Wait(done(2), 1.0))) == 3


@EACH
def test_failures_are_raised_in_the_flow(drive):
    failure = LookupError("lost")

    assert drive(outcome_of(Wait(failed(failure), 1.0))) is failure


@EACH
def test_what_the_flow_raises_is_raised(drive):
    def refusing():
        yield Wait(done(1), 1.0)
        raise KeyError("no")

    with pytest.raises(KeyError):
        drive(refusing())


@EACH
def test_patience_ends_as_a_timeout_in_the_flow(drive):
    assert isinstance(drive(outcome_of(Wait(Future(), 0.0))), TimeoutError)


@EACH
def test_a_flow_may_wait_again_after_a_failure(drive):
    def retrying():
        try:
            yield Wait(failed(LookupError()), 1.0)
        except LookupError:
            return (yield Wait(done("second"), 1.0))

    assert drive(retrying()) == "second"


@EACH
def test_a_future_that_its_owner_cancelled_is_a_failure(drive):
    future = Future()
    future.cancel()

    assert isinstance(drive(outcome_of(Wait(future, 1.0))), CancelledError)


@EACH
def test_a_wait_that_timed_out_leaves_the_future_to_others(drive):
    future = Future()

    drive(outcome_of(Wait(future, 0.0)))

    assert not future.cancelled()


def test_run_waits_for_another_thread():
    future = Future()
    flow = adding(Wait(future, 10.0))
    waiting = next(flow)
    other = threading.Thread(target=future.set_result, args=(7,))
    other.start()

    assert run(flow, waiting=waiting) == 7
    other.join()


def test_the_timeout_shortens_every_wait():
    assert isinstance(run(outcome_of(Wait(Future(), 600.0)), timeout=0.0), TimeoutError)


def test_the_timeout_lengthens_no_wait():
    assert isinstance(run(outcome_of(Wait(Future(), 0.0)), timeout=600.0), TimeoutError)


def test_a_deadline_that_has_passed_is_a_timeout():
    assert isinstance(run(outcome_of(Wait(Future(), 600.0)), timeout=-1.0), TimeoutError)


def test_run_goes_on_where_somebody_else_began():
    flow = adding(Wait(done(1), 1.0), Wait(done(2), 1.0))
    waiting = next(flow)

    assert run(flow, waiting=waiting) == 3


@EACH
def test_a_flow_that_has_begun_is_finished_as_another(drive):
    def within(flow):
        return (yield from resumed(flow, next(flow))) + 1

    assert drive(within(adding(Wait(done(1), 1.0), Wait(done(2), 1.0)))) == 4
    failing = outcome_of(Wait(failed(LookupError("lost")), 1.0))
    assert isinstance(drive(resumed(failing, next(failing))), LookupError)


def test_a_flow_that_has_begun_ends_with_the_one_that_finishes_it():
    ended = []

    def ending():
        try:
            yield Wait(Future(), 600.0)
        finally:
            ended.append(True)

    inner = ending()
    outer = resumed(inner, next(inner))
    next(outer)
    outer.close()

    assert ended == [True]


def test_a_thread_too_many_is_turned_away_at_once():
    threads = threading.Semaphore(0)

    assert isinstance(run(outcome_of(Wait(Future(), 600.0, threads))), OverloadedError)


@pytest.mark.parametrize("future", [pytest.param(done(1), id="done"), pytest.param(failed(LookupError()), id="failed")])
def test_no_thread_is_turned_away_from_a_result_that_is_there(future):
    error = run(outcome_of(Wait(future, 600.0, threading.Semaphore(0))))

    assert not isinstance(error, OverloadedError)


@pytest.mark.parametrize(("timeout", "kind"), [(0.0, DeadlineError), (600.0, TimeoutError), (None, TimeoutError)])
def test_a_callers_deadline_is_another_end_than_that_of_patience(timeout, kind):
    """R1."""
    wait = Wait(Future(), 600.0 if timeout == 0.0 else 0.0)

    assert type(run(outcome_of(wait), timeout)) is kind


def test_what_a_future_raises_is_no_deadline():
    failure = TimeoutError("the answer itself")

    assert run(outcome_of(Wait(failed(failure), 600.0)), timeout=0.0) is failure


def test_a_thread_gives_its_place_back():
    threads = threading.BoundedSemaphore(1)

    run(outcome_of(Wait(Future(), 0.0, threads)))

    assert threads.acquire(blocking=False)


def test_a_thread_that_waits_holds_its_place():
    threads, held = threading.BoundedSemaphore(1), []
    future = Future()

    class Looking(Future):
        def result(self, timeout=None):
            held.append(threads.acquire(blocking=False))
            return future.result(timeout)

    run(outcome_of(Wait(Looking(), 0.0, threads)))

    assert held == [False]


def test_tasks_need_no_place():
    assert asyncio.run(arun(outcome_of(Wait(done(1), 1.0, threading.Semaphore(0))))) is None


def test_a_cancelled_task_leaves_the_future_to_others():
    future = Future()

    async def scenario():
        task = asyncio.create_task(arun(adding(Wait(future, 600.0))))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())

    assert not future.cancelled()
    future.set_result(1)


def test_a_cancelled_task_stays_cancelled_when_its_future_is_cancelled_too():
    future = Future()

    async def scenario():
        task = asyncio.create_task(arun(outcome_of(Wait(future, 600.0))))
        await asyncio.sleep(0)
        future.cancel()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled()

    assert asyncio.run(scenario())


def test_tasks_share_one_future():
    future = Future()

    async def scenario():
        tasks = [asyncio.create_task(arun(adding(Wait(future, 600.0)))) for _ in range(20)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        future.set_result(1)
        return await asyncio.gather(*tasks[1:])

    assert asyncio.run(scenario()) == [1] * 19


@pytest.mark.parametrize("cancel", [True, False])
def test_a_flow_that_ends_early_is_closed(cancel):
    closed = []

    def watched():
        try:
            yield Wait(Future(), 600.0)
        finally:
            closed.append(True)

    async def cancelled():
        task = asyncio.create_task(arun(watched()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    class Interrupting(Future):
        def result(self, timeout=None):  # noqa: ARG002 - as its base has it
            raise KeyboardInterrupt

    if cancel:
        asyncio.run(cancelled())
    else:
        flow = watched()
        next(flow)
        with pytest.raises(KeyboardInterrupt):
            run(flow, waiting=Wait(Interrupting(), 1.0))

    assert closed == [True]


# ---- start ----


def test_a_started_flow_blocks_no_thread():
    ending = Ending(adding(Wait(Future(), 600.0)))

    assert ending.outcomes == []


def test_a_started_flow_goes_on_where_its_future_is_completed():
    future = Future()
    ending = Ending(adding(Wait(future, 600.0), Wait(done(2), 1.0)))
    other = threading.Thread(target=future.set_result, args=(1,))
    other.start()
    other.join()

    assert (ending.outcomes, ending.threads) == ([(3, None)], [other])


def test_a_started_flow_ends_once_whatever_comes_after_its_patience():
    future = Future()
    ending = Ending(outcome_of(Wait(future, 0.0)))
    error = ending.wait()[0]
    future.set_result(1)

    assert isinstance(error, TimeoutError)
    assert len(ending.outcomes) == 1


def test_a_started_flow_can_pause():
    assert Ending(pause(0.0)).wait() == (None, None)


def test_started_flows_share_one_future():
    future = Future()
    endings = [Ending(adding(Wait(future, 600.0))) for _ in range(20)]
    future.set_result(1)

    assert [ending.outcomes for ending in endings] == [[(1, None)]] * 20


@pytest.mark.parametrize("error", [RuntimeError(), GeneratorExit(), SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_whatever_a_started_flow_raises_is_told_and_ends_no_thread_of_others(error):
    def raising():
        yield Wait(future, 600.0)
        raise error

    future = Future()
    ending = Ending(raising())
    future.set_result(1)

    assert ending.outcomes == [(None, error)]
