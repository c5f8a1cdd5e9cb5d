"""The registry of open streams: each ends when it must, and none keeps another from it."""

import logging
import math
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from authz import ConfigError, Principal
from authz.errors import KeyNotFoundError, ResourceExhaustedError, TokenExpiredError, TokenInactiveError
from authz.judge.streams import FEW, OpenStreams, StreamRules
from authz.runtime.clock import SYSTEM_CLOCK
from tests.doubles import CLIENT, NOW, ORG
from tests.judge.held_back import review_by_hand
from tests.runtime.test_fork import run as run_forking

PATIENCE = 120.0
SECRET = "what no log may hold"


class Stream:
    """Notes how it is ended."""

    def __init__(self, *answers, error=None):
        self.errors = []
        self.ended = threading.Event()
        self._answers = list(answers)
        self._error = error

    def end(self, error):
        self.errors.append(error)
        self.ended.set()
        if self._error is not None:
            raise self._error
        return self._answers.pop(0) if self._answers else None

    @property
    def reasons(self):
        return [error.reason for error in self.errors]


@pytest.fixture
def streams(clock):
    return OpenStreams(clock=clock.clock)


def principal(org_id=ORG):
    return Principal(org_id=org_id, client_id=CLIENT, subject=CLIENT)


def opened(streams, until=NOW + 100, who=None, stream=None):
    stream = stream or Stream()
    streams.open(stream, who or principal(), until)
    return stream


def withdraw(streams, error, concerns=lambda _who: True):
    streams.judge(lambda _call, who: error if concerns(who) else None)
    streams.settle()


def after(streams, clock, seconds):
    clock.advance(seconds)
    streams.expire()


# ---- Expiry ----


def test_stream_ends_when_it_is_due_and_not_before(streams, clock):
    stream = opened(streams, NOW + 100)
    after(streams, clock, 99.9)
    before = list(stream.reasons)
    after(streams, clock, 0.1)

    assert (before, stream.reasons) == ([], ["token_expired"])


def test_stream_is_ended_once(streams, clock):
    stream = opened(streams)
    for _ in range(3):
        after(streams, clock, 100)

    assert stream.reasons == ["token_expired"]


def test_streams_end_in_the_order_of_their_ends(streams, clock):
    order = []

    class Ordered(Stream):
        def end(self, error):
            order.append(self)
            return super().end(error)

    ends = [number * 37 % 101 for number in range(1, 101)]
    streams_of = {end: opened(streams, NOW + end, stream=Ordered()) for end in ends}
    after(streams, clock, 200)

    assert order == [streams_of[end] for end in sorted(ends)]


def test_stream_that_is_opened_once_more_ends_by_its_new_end_alone(streams, clock):
    """And what was set for the first time is not kept until then."""
    stream = opened(streams, NOW + 10)
    opened(streams, NOW + 20, stream=stream)
    after(streams, clock, 10)
    before = list(stream.reasons)
    after(streams, clock, 10)

    assert (before, stream.reasons) == ([], ["token_expired"])


def test_only_what_is_due_ends(streams, clock):
    early, late = opened(streams, NOW + 10), opened(streams, NOW + 20)
    after(streams, clock, 10)

    assert (early.reasons, late.reasons) == (["token_expired"], [])


def test_stream_that_is_due_already_ends_as_it_opens(streams):
    streams_of = [opened(streams, NOW), opened(streams, NOW - 1000), opened(streams, -math.inf)]

    assert [stream.reasons for stream in streams_of] == [["token_expired"]] * 3


def test_stream_without_an_end_goes_on(streams, clock):
    stream = opened(streams, math.inf)
    after(streams, clock, 1e9)

    assert (stream.reasons, len(streams)) == ([], 1)


def test_stream_that_is_closed_is_not_ended(streams, clock):
    stream = opened(streams)
    streams.close(stream)
    after(streams, clock, 100)
    withdraw(streams, TokenInactiveError())

    assert (stream.reasons, len(streams)) == ([], 0)


def test_stream_may_be_closed_twice_or_without_having_been_opened(streams):
    stream = opened(streams)
    for _ in range(2):
        streams.close(stream)
    streams.close(Stream())

    assert len(streams) == 0


def test_stream_that_has_been_ended_stays_until_it_is_closed(streams, clock):
    """It is not over yet, and may have to be told again."""
    stream = opened(streams)
    after(streams, clock, 100)
    before = len(streams)
    streams.close(stream)

    assert (before, len(streams)) == (1, 0)


# ---- Withdrawal ----


def test_what_is_withdrawn_ends_and_nothing_else(streams):
    ended, other = opened(streams), opened(streams, who=principal("org_other"))

    withdraw(streams, TokenInactiveError(), lambda one: one.org_id == ORG)

    assert (ended.reasons, other.reasons) == (["token_inactive"], [])


def test_stream_without_an_end_can_be_withdrawn(streams):
    stream = opened(streams, math.inf)
    withdraw(streams, KeyNotFoundError())

    assert stream.reasons == ["key_not_found"]


def test_all_streams_of_one_principal_end(streams):
    who = principal()
    all_of_them = [opened(streams, who=who) for _ in range(50)]

    withdraw(streams, TokenInactiveError(), lambda one: one is who)

    assert all(stream.reasons == ["token_inactive"] for stream in all_of_them)


def test_streams_that_close_while_others_are_ended_do_no_harm(streams):
    """A door closes a stream on whichever thread it likes, this one included."""

    class Closing(Stream):
        def end(self, error):
            streams.close(self)
            return super().end(error)

    all_of_them = [opened(streams, stream=Closing(1.0)) for _ in range(10)]

    withdraw(streams, TokenInactiveError())

    assert [len(stream.errors) for stream in all_of_them] == [1] * 10
    assert len(streams) == 0


# ---- Many at once ----


def by_hand(clock):
    return review_by_hand(OpenStreams(clock=clock.clock))


def crowd(streams, number=FEW + 1, **options):
    return [opened(streams, **options) for _ in range(number)]


def refusing(org_id):
    return lambda _call, who: TokenInactiveError() if who.org_id == org_id else None


def test_giver_waits_for_few_streams_alone(clock):
    few, many = by_hand(clock), by_hand(clock)
    told, untold = crowd(few, FEW), crowd(many)
    few.judge(refusing(ORG))
    many.judge(refusing(ORG))

    assert ({len(stream.errors) for stream in told}, few.is_behind) == ({1}, False)
    assert ({len(stream.errors) for stream in untold}, many.is_behind) == ({0}, True)


def test_thread_ends_all_of_many_streams():
    streams = OpenStreams(clock=SYSTEM_CLOCK)
    all_of_them = crowd(streams, 3000, until=math.inf)
    streams.judge(refusing(ORG))

    assert all(stream.ended.wait(PATIENCE) for stream in all_of_them)
    assert {len(stream.errors) for stream in all_of_them} == {1}


def test_stream_that_is_looked_at_ends_before_its_turn_and_once(clock):
    streams = by_hand(clock)
    ended, other = opened(streams), opened(streams, who=principal("org_other"))
    crowd(streams)
    streams.judge(refusing(ORG))
    for _ in range(2):
        streams.look(ended)
        streams.look(other)
    before = (ended.reasons, other.reasons)
    streams.settle()

    assert before == (["token_inactive"], [])
    assert (ended.reasons, other.reasons, streams.is_behind) == (["token_inactive"], [], False)


def test_two_questions_tell_a_stream_once(clock):
    """The second time would break it off."""
    streams = by_hand(clock)
    all_of_them = crowd(streams)
    streams.judge(refusing(ORG))
    streams.judge(lambda _call, _who: KeyNotFoundError())
    streams.settle()

    assert {tuple(stream.reasons) for stream in all_of_them} == {("token_inactive",)}


def test_question_that_comes_up_again_meanwhile_is_put_about_all_once_more(clock):
    """What it says of the first streams may have changed since."""
    streams = by_hand(clock)
    refused = set()

    def question(_call, who):
        return TokenInactiveError() if who.org_id in refused else None

    class Late(Stream):
        def end(self, error):
            refused.add("org_first")
            streams.judge(question)
            return super().end(error)

    first = opened(streams, who=principal("org_first"))
    opened(streams, who=principal("org_last"), stream=Late())
    crowd(streams)
    refused.add("org_last")
    streams.judge(question)
    streams.settle()
    before = (list(first.reasons), streams.is_behind)
    streams.settle()

    assert before == ([], True)
    assert (first.reasons, streams.is_behind) == (["token_inactive"], False)


def test_thread_that_is_interrupted_tells_the_others_all_the_same():
    streams = OpenStreams(clock=SYSTEM_CLOCK)
    odd = opened(streams, math.inf, stream=Stream(error=SystemExit()))
    all_of_them = crowd(streams, until=math.inf)
    streams.judge(refusing(ORG))

    assert all(stream.ended.wait(PATIENCE) for stream in all_of_them)
    assert odd.errors


def test_of_many_that_expire_at_once_none_goes_on_until_its_turn(streams, clock):
    seen = []

    class First(Stream):
        def end(self, error):
            streams.look(last)
            streams.look(later)
            seen.append((list(last.reasons), list(later.reasons)))
            return super().end(error)

    opened(streams, NOW + 10, stream=First())
    last, later = opened(streams, NOW + 20), opened(streams, NOW + 1000)
    after(streams, clock, 20)

    assert seen == [(["token_expired"], [])]
    assert last.reasons == ["token_expired"]


# ---- Streams that take their time, or fail ----


def test_stream_is_asked_again_when_it_says_so(streams, clock):
    stream = opened(streams, stream=Stream(1.0, 2.0))
    after(streams, clock, 100)
    counts = []
    for seconds in (0.9, 0.1, 1.9, 0.1, 100):
        after(streams, clock, seconds)
        counts.append(len(stream.errors))

    assert counts == [1, 2, 2, 3, 3]


def test_stream_that_was_withdrawn_is_asked_again_too(streams, clock):
    stream = opened(streams, math.inf, stream=Stream(1.0))
    withdraw(streams, TokenInactiveError())
    after(streams, clock, 1)

    assert len(stream.errors) == 2


def test_stream_is_not_asked_again_once_it_is_closed(streams, clock):
    stream = opened(streams, stream=Stream(1.0))
    after(streams, clock, 100)
    streams.close(stream)
    after(streams, clock, 100)

    assert len(stream.errors) == 1


@pytest.mark.parametrize("how", ["expire", "end"])
def test_stream_that_fails_keeps_no_other_open(streams, clock, caplog, how):
    caplog.set_level(logging.DEBUG, "authz")
    all_of_them = [Stream(), Stream(error=RuntimeError(SECRET)), Stream()]
    for stream in all_of_them:
        opened(streams, stream=stream)
    if how == "expire":
        after(streams, clock, 100)
    else:
        withdraw(streams, TokenInactiveError())

    assert [len(stream.errors) for stream in all_of_them] == [1, 1, 1]
    [record] = caplog.records
    assert (record.event, record.fields["error"], record.levelno) == ("unforeseen_error", "RuntimeError", logging.ERROR)
    assert SECRET not in caplog.text


def test_stream_that_cannot_be_judged_anew_ends_and_keeps_no_other_open(streams, caplog):
    all_of_them = [opened(streams), opened(streams, who=principal("org_odd")), opened(streams)]

    def refusal(_call, who):
        if who.org_id == "org_odd":
            raise RuntimeError(SECRET)
        return TokenInactiveError()

    streams.judge(refusal)

    assert [stream.reasons for stream in all_of_them] == [["token_inactive"], ["internal"], ["token_inactive"]]
    assert SECRET not in caplog.text


# ---- What it costs ----


def held(streams):
    """Count the most that anything in a registry holds, whatever it is called."""
    values = list(vars(streams).values())
    inner = [part for value in values if hasattr(value, "__dict__") for part in vars(value).values()]
    return max(len(value) for value in values + inner if hasattr(value, "__len__"))


@pytest.mark.long
@pytest.mark.parametrize("open_at_once", [1, 500])
def test_streams_that_are_over_leave_nothing_behind(streams, open_at_once):
    most = 0
    for number in range(100_000 // open_at_once):
        batch = [opened(streams, NOW + 100 + number % 7) for _ in range(open_at_once)]
        for stream in batch:
            streams.close(stream)
        most = max(most, held(streams))

    assert most <= 2 * open_at_once + 200
    assert len(streams) == 0


def test_one_that_goes_on_does_not_keep_others_in_memory(streams):
    opened(streams, NOW + 1)
    for _ in range(10_000):
        streams.close(opened(streams, NOW + 1000))

    assert held(streams) < 200


def keepers():
    return [thread for thread in threading.enumerate() if thread.name == "authz-streams"]


def test_one_thread_keeps_time_for_all(streams):
    before = len(keepers())
    for number in range(1000):
        opened(streams, NOW + 100 + number)

    assert len(keepers()) - before <= 1
    assert all(thread.daemon for thread in keepers())


def test_streams_without_an_end_need_no_thread(streams):
    before = keepers()
    opened(streams, math.inf)

    assert keepers() == before


def test_thread_ends_streams_by_itself():
    streams = OpenStreams(clock=SYSTEM_CLOCK)
    now = SYSTEM_CLOCK.time()
    late, early = opened(streams, now + 3600), opened(streams, now + 0.05)

    assert early.ended.wait(PATIENCE)
    earlier = opened(streams, SYSTEM_CLOCK.time() + 0.05)
    assert earlier.ended.wait(PATIENCE)
    assert late.reasons == []


def test_thread_outlives_a_stream_that_fails():
    streams = OpenStreams(clock=SYSTEM_CLOCK)
    opened(streams, SYSTEM_CLOCK.time() + 0.01, stream=Stream(error=RuntimeError(SECRET)))
    after_it = opened(streams, SYSTEM_CLOCK.time() + 0.05)

    assert after_it.ended.wait(PATIENCE)


def test_forked_child_forgets_the_streams_and_keeps_time_for_its_own():
    program = """
from authz import Principal
from authz.runtime.clock import SYSTEM_CLOCK
from authz.judge.streams import OpenStreams

class Stream:
    def __init__(self):
        self.ended = threading.Event()
    def end(self, error):
        self.ended.set()

streams = OpenStreams()
who = Principal(org_id="org", client_id="client", subject="client")
parents = Stream()
streams.open(parents, who, SYSTEM_CLOCK.time() + 0.5)

def ask():
    before = len(streams)
    mine = Stream()
    streams.open(mine, who, SYSTEM_CLOCK.time() + 0.05)
    return before, mine.ended.wait(120), parents.ended.is_set()

forked(ask)
print("parent", len(streams), parents.ended.wait(120))
"""

    assert run_forking(program) == ["child (0, True, False)", "parent 1 True"]


def test_threads_may_open_close_end_and_expire_at_once(streams, clock):  # noqa: C901 - four small works
    failures = []
    interval = sys.getswitchinterval()
    barrier = threading.Barrier(6)

    def attempt(work):
        try:
            barrier.wait(PATIENCE)
            work()
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not be
            failures.append(repr(error))

    def open_and_close():
        for number in range(800):
            stream = opened(streams, clock.now + number % 3, stream=Stream(0.5))
            if number % 2:
                streams.close(stream)
                streams.close(stream)

    def end():
        for _ in range(150):
            withdraw(streams, TokenInactiveError(), lambda one: one.org_id == ORG)

    def expire():
        for _ in range(800):
            after(streams, clock, 0.01)

    works = [open_and_close, open_and_close, open_and_close, end, expire, expire]
    threads = [threading.Thread(target=attempt, args=(work,)) for work in works]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    assert failures == []
    assert len(streams) == 3 * 400


# ---- Rules ----


@pytest.mark.parametrize(
    ("expiry", "method", "until"),
    [
        ("token", "/a.B/C", 100.0),
        ("never", "/a.B/C", math.inf),
        ({}, "/a.B/C", 100.0),
        ({"*": "never"}, "/a.B/C", math.inf),
        ({"/a.B/C": "never"}, "/a.B/C", math.inf),
        ({"/a.B/C": "never"}, "/a.B/D", 100.0),
        ({"/a.B/C": "never"}, "/a.B/c", 100.0),
        ({"/a.B/C": "token", "*": "never"}, "/a.B/C", 100.0),
        ({"/a.B/C": "token", "*": "never"}, "/a.B/D", math.inf),
    ],
)
def test_rule_is_that_of_the_method_or_of_all_others(expiry, method, until):
    assert StreamRules(expiry).until(method, 100.0) == until


def test_grace_is_added():
    assert StreamRules(grace=2.5).until("/a.B/C", 100.0) == 102.5


def test_rules_do_not_change_when_their_mapping_does():
    expiry = {"/a.B/C": "token"}
    rules = StreamRules(expiry)
    expiry["/a.B/C"] = "never"

    assert rules.until("/a.B/C", 100.0) == 100.0


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"expiry": "always"}, "stream_expiry"),
        ({"expiry": None}, "stream_expiry"),
        ({"expiry": {"/a.B/C": "Token"}}, "stream_expiry"),
        ({"expiry": {"/a.B/C": None}}, "stream_expiry"),
        ({"expiry": {"a.B/C": "never"}}, "stream_expiry"),
        ({"expiry": {"": "never"}}, "stream_expiry"),
        ({"grace": -0.001}, "grace"),
        ({"grace": math.inf}, "grace"),
        ({"grace": math.nan}, "grace"),
    ],
    ids=str,
)
def test_rules_that_cannot_work_are_refused(options, setting):
    with pytest.raises(ConfigError, match=f"^{setting}: "):
        StreamRules(**options)


def test_error_of_expiry_is_that_of_an_expired_token(streams, clock):
    stream = opened(streams)
    after(streams, clock, 100)

    assert [type(error) for error in stream.errors] == [TokenExpiredError]


# ---- At most so many ----


def is_let_in(streams, at_most, who=None, stream=None):
    try:
        streams.open(stream or Stream(), who or principal(), math.inf, at_most)
    except ResourceExhaustedError:
        return False
    return True


def test_no_organization_has_more_streams_than_it_may(streams):
    assert [is_let_in(streams, 2) for _ in range(3)] == [True, True, False]
    assert is_let_in(streams, 2, principal("org_other"))
    assert is_let_in(streams, math.inf)
    assert len(streams) == 4


def test_stream_that_is_closed_leaves_one_place_however_often_it_is_closed(streams):
    first = opened(streams)
    assert is_let_in(streams, 2)
    for _ in range(3):
        streams.close(first)
    streams.close(Stream())

    assert [is_let_in(streams, 2) for _ in range(3)] == [True, False, False]


def test_stream_that_is_told_to_end_keeps_its_place_until_it_is_over(streams):
    stream = opened(streams)
    withdraw(streams, TokenInactiveError())
    before = is_let_in(streams, 1)
    streams.close(stream)

    assert (before, is_let_in(streams, 1)) == (False, True)


def test_stream_that_is_taken_in_once_more_counts_once(streams):
    stream = Stream()
    assert [is_let_in(streams, 2, stream=stream) for _ in range(3)] == [True] * 3
    assert [is_let_in(streams, 2) for _ in range(2)] == [True, False]
    streams.close(stream)
    assert is_let_in(streams, 2)


def test_racing_streams_get_no_more_places_than_there_are(streams):
    start = threading.Barrier(8)

    def race(_number):
        start.wait(PATIENCE)
        return sum(is_let_in(streams, 100) for _ in range(50))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(race, range(8))) == 100


def test_organizations_without_streams_leave_nothing_behind(streams):
    for number in range(100):
        streams.close(opened(streams, who=principal(f"org_{number}")))

    assert [value for value in vars(streams).values() if isinstance(value, dict)] == [{}, {}]


# ---- By either clock ----


def test_stream_ends_by_the_time_of_day_when_that_is_set_forward(streams, clock):
    """A machine that was suspended: its other clock stood still meanwhile."""
    ended, other = opened(streams, NOW + 3600), opened(streams, NOW + 7200)
    clock.set_forward(3599.9)
    streams.expire()
    before = list(ended.reasons)
    clock.set_forward(0.1)
    streams.expire()

    assert (before, ended.reasons, other.reasons) == ([], ["token_expired"], [])


@pytest.mark.parametrize("seconds", [-1, -3600, -1e6])
def test_stream_ends_as_late_as_it_would_when_the_time_of_day_is_set_back(streams, clock, seconds):
    stream = opened(streams, NOW + 100)
    clock.set_forward(seconds)
    after(streams, clock, 99.9)
    before = list(stream.reasons)
    after(streams, clock, 0.1)

    assert (before, stream.reasons) == ([], ["token_expired"])


def test_streams_end_however_the_time_of_day_is_set_in_between(streams, clock):
    """By the clock that comes first, whenever each of them was opened."""
    clock.set_forward(-3600)
    early = opened(streams, NOW - 3600 + 1000)
    clock.set_forward(3600)
    late = opened(streams, NOW + 900)
    streams.expire()
    at_once = (early.reasons, late.reasons)
    after(streams, clock, 900)

    assert at_once == (["token_expired"], [])
    assert late.reasons == ["token_expired"]


def test_stream_is_ended_once_by_both_clocks(streams, clock):
    stream = opened(streams)
    clock.set_forward(100)
    streams.expire()
    after(streams, clock, 100)
    clock.set_forward(-100)
    after(streams, clock, 100)

    assert stream.reasons == ["token_expired"]


def test_stream_is_asked_again_by_the_clock_that_is_not_set(streams, clock):
    stream = opened(streams, stream=Stream(1.0))
    after(streams, clock, 100)
    clock.set_forward(3600)
    streams.expire()
    before = len(stream.errors)
    after(streams, clock, 1)

    assert (before, len(stream.errors)) == (1, 2)


def test_streams_that_are_over_by_one_clock_leave_nothing_behind_on_the_other(streams, clock):
    for _ in range(100):
        batch = [opened(streams, clock.now + 100) for _ in range(100)]
        clock.set_forward(100)
        streams.expire()
        for stream in batch:
            streams.close(stream)

    assert held(streams) < 300
