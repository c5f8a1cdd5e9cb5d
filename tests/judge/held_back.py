"""Reviews of open streams that end none until a test says so, as if there were thousands of streams."""

from authz import Authorizer
from authz.judge.streams import OpenStreams, Question, Reviews
from authz.runtime.clock import SYSTEM_CLOCK


class ReviewsByHand(Reviews):
    """They have no thread."""

    def _begin(self) -> None:
        pass


class _HeldBack(ReviewsByHand):
    """However few streams there are."""

    def ask(self, question: Question) -> None:
        self.questions = (*self.questions, question)


def review_by_hand(streams: OpenStreams) -> OpenStreams:
    """Have many of ``streams`` told only when a test has them settle."""
    streams.reviews = ReviewsByHand(streams, streams.judge_one, clock=SYSTEM_CLOCK)
    return streams


def hold_back(judge: Authorizer) -> None:
    """Have ``judge`` tell no stream from now on that it must end, but for those that are looked at."""
    judge.streams.reviews = _HeldBack(judge.streams, judge.streams.judge_one, clock=SYSTEM_CLOCK)
