"""Whether the threads that decide get on, as it is counted."""

from authz.server.serving.pulse import BEAT, Pulse


def test_thread_is_still_for_as_often_as_it_was_seen_where_it_was() -> None:
    rounds: list[int] = []
    pulse = Pulse(lambda: rounds)
    pulse.look()
    idle = pulse.still
    # Two threads have been started; one of them hangs, or is no more.
    rounds.extend([0, 0])
    seen = []
    for _ in range(4):
        pulse.look()
        seen.append(pulse.still)
        rounds[0] += 1
    rounds[1] += 1
    pulse.look()

    assert idle == 0
    assert seen == [0, BEAT, 2 * BEAT, 3 * BEAT]
    assert pulse.still == 0


def test_engine_without_such_threads_is_never_still() -> None:
    pulse = Pulse(lambda: ())
    for _ in range(3):
        pulse.look()

    assert pulse.still == 0
