"""One question about a subject at a time, its answer shared, and pauses after failures."""

import asyncio
import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

import pytest

from authz.runtime.asking import Asking, ClosedError, NoAnswerError, Question
from authz.runtime.flow import Flow, Wait, arun, run
from authz.runtime.network.transport import TransportError
from tests.doubles import PATIENCE, ManualClock, start_afresh


class Owner:
    """Asks about words, and knows no answer but those that come."""

    def __init__(self, clock: ManualClock) -> None:
        self.asking = Asking[str, str]("tests", clock.clock, lambda: 0.0)
        self.responses: list[Future[str]] = []
        self.ended: list[tuple[str | None, str]] = []

    def find(self, subject: str) -> Flow[str | None]:
        question = self.ask(subject)
        assert question is not None
        answer: str | None = yield Wait(question.answer, PATIENCE)
        return answer

    def ask(self, subject: str = "word") -> Question[str, str] | None:
        with self.asking.lock:
            under_way = self.asking.questions.get(subject)
            if under_way is not None or not self.asking.may_ask:
                return under_way
            question = self.asking.begin(Question(subject))
        response: Future[str] = Future()
        self.responses.append(response)
        self.asking.expect(response, str.upper, lambda answer, failure: self._finish(question, answer, failure))
        return question

    def _finish(self, question: Question[str, str], answer: str | None, failure: NoAnswerError | None) -> None:
        with self.asking.lock:
            self.asking.end(question, failure)
        self.ended.append((answer, self.asking.error))
        question.answer.set_result(answer)

    def fail(self, failure: BaseException | None = None, response: int = -1) -> None:
        self.responses[response].set_exception(failure or NoAnswerError("timeout"))


@pytest.fixture
def owner(clock: ManualClock) -> Owner:
    return Owner(clock)


def test_threads_and_tasks_share_one_question_and_its_answer(owner: Owner) -> None:
    all_wait = threading.Barrier(9, timeout=PATIENCE)

    def find() -> str | None:
        flow = owner.find("word")
        wait = next(flow)
        all_wait.wait()
        return run(flow, waiting=wait)

    async def find_in_tasks() -> list[str | None]:
        tasks = [asyncio.ensure_future(arun(owner.find("word"))) for _ in range(8)]
        await asyncio.sleep(0)
        await asyncio.to_thread(all_wait.wait)
        owner.responses[0].set_result("answer")
        return await asyncio.gather(*tasks)

    with ThreadPoolExecutor(8) as threads:
        found = [threads.submit(find) for _ in range(8)]
        in_tasks = asyncio.run(find_in_tasks())

    assert [*in_tasks, *(each.result() for each in found)] == ["ANSWER"] * 16
    assert len(owner.responses) == 1


def test_each_subject_has_a_question_of_its_own_and_a_number(owner: Owner, clock: ManualClock) -> None:
    first = owner.ask("one")
    clock.advance(1)
    second = owner.ask("two")

    assert first is not None
    assert second is not None
    assert (first.number, second.number, owner.asking.begun) == (1, 2, 2)
    assert second.asked_at.time - first.asked_at.time == 1


def test_what_was_answered_can_be_asked_again(owner: Owner) -> None:
    first = owner.ask()
    owner.responses[0].set_result("answer")

    assert owner.ask() is not first
    assert owner.ended == [("ANSWER", "")]


@pytest.mark.parametrize(
    ("raised", "error", "kind"),
    [
        (NoAnswerError("not JSON"), "not JSON", ""),
        (NoAnswerError("status 503", is_outage=True), "status 503", "outage"),
        (TransportError("connect"), "connect", "outage"),
        (TransportError("exhausted"), "exhausted", ""),
        (CancelledError(), "closed", "closed"),
        (RuntimeError("a bug"), "unforeseen", ""),
        (SystemExit(), "unforeseen", ""),
    ],
)
def test_whatever_a_response_raises_ends_the_question(
    owner: Owner, raised: BaseException, error: str, kind: str
) -> None:
    question = owner.ask()
    owner.fail(raised)

    assert question is not None
    assert question.answer.result(0) is None
    assert owner.ended == [(None, error)]
    assert question.failure is owner.asking.failure
    assert question.failure is not None
    assert question.failure.is_outage is (kind == "outage")
    assert isinstance(question.failure, ClosedError) is (kind == "closed")
    assert owner.asking.causes == {error.replace("503", "5xx"): 1}


def test_an_answer_that_cannot_be_read_ends_the_question_and_is_logged(
    owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    owner.ask()
    number: Future[int] = Future()
    owner.asking.expect(number, str.upper, lambda answer, failure: owner.ended.append((answer, str(failure))))  # type: ignore[arg-type]
    number.set_result(1)

    assert owner.ended == [(None, "unforeseen")]
    assert [record.fields["where"] for record in caplog.records] == ["tests"]  # type: ignore[attr-defined]


def test_pauses_double_from_one_second_to_sixty(owner: Owner, clock: ManualClock) -> None:
    pauses = []
    for _ in range(8):
        assert owner.ask() is not None
        owner.fail()
        pauses.append(owner.asking.pause)
        clock.advance(pauses[-1] - 0.5)
        assert owner.ask() is None
        clock.advance(0.5)

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def test_the_server_may_ask_for_a_longer_pause(owner: Owner) -> None:
    owner.ask()
    owner.fail(NoAnswerError("status 429", pause=30))

    assert owner.asking.pause == 30


def test_questions_under_way_together_are_one_failure(owner: Owner) -> None:
    for subject in "abc":
        owner.ask(subject)
    for response in range(3):
        owner.fail(response=response)

    assert owner.asking.pause == 1
    assert owner.asking.causes == {"timeout": 3}


def test_after_a_failure_one_question_at_a_time_finds_out_whether_it_is_over(owner: Owner, clock: ManualClock) -> None:
    owner.ask()
    owner.fail()
    clock.advance(1)
    assert owner.ask("first") is not None
    assert owner.ask("second") is None

    owner.responses[-1].set_result("answer")
    assert owner.asking.error == ""
    assert owner.ask("second") is not None
    assert owner.ask("third") is not None


def test_a_failure_about_one_subject_keeps_no_other_from_being_asked_about(owner: Owner) -> None:
    owner.ask()
    owner.fail(NoAnswerError("status 404", is_about_one=True))

    assert owner.asking.error == "status 404"
    assert owner.asking.may_ask
    assert not owner.asking.backoff.is_failing


def test_a_pause_goes_by_the_clock_that_cannot_be_set(owner: Owner, clock: ManualClock) -> None:
    owner.ask()
    owner.fail()
    clock.set_forward(3600)

    assert not owner.asking.may_ask


def test_a_forked_child_asks_for_itself_and_the_parents_answer_does_not_end_its_question(owner: Owner) -> None:
    owner.ask()
    held = owner.asking.lock
    with held:
        start_afresh(owner)
        in_child = owner.ask()
    owner.responses[0].set_result("the parent's")

    assert len(owner.responses) == 2
    assert owner.ask() is in_child
    assert in_child is not None
    assert not in_child.answer.done()
