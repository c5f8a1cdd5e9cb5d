"""A memory that is full forgets everything, and frees it a little at a time."""

import itertools
import weakref

from authz.call.memory import Memory


class Thing:
    """Something that a memory may hold."""


def filled(size: int) -> tuple[Memory[int, Thing], "weakref.WeakSet[Thing]"]:
    memory, alive = Memory[int, Thing](size), weakref.WeakSet[Thing]()
    for number in range(size):
        memory[number] = thing = Thing()
        alive.add(thing)
    return memory, alive


def test_a_full_memory_forgets_everything() -> None:
    memory, _ = filled(10)
    new = Thing()
    memory.remember(10, new)

    assert memory == {10: new}


def test_what_is_forgotten_is_freed_a_few_at_a_time() -> None:
    memory, alive = filled(1000)
    left = [len(alive)]
    for number in range(1000, 2000):
        memory.remember(number, Thing())
        left.append(len(alive))

    assert max(before - after for before, after in itertools.pairwise(left)) <= 4
    assert left[-1] == 0


def test_a_memory_that_is_let_go_frees_what_it_has_forgotten() -> None:
    memory, alive = filled(100)
    memory.remember(100, Thing())
    steps = sum(1 for _ in memory.let_go())

    assert len(alive) == 0
    assert steps > 10
