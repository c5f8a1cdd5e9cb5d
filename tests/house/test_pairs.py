"""What `make test` leaves out of the combinations of parameters: no value, no pair, but one of two engines."""

import itertools

import pytest

from tests.pairs import beyond_one_engine, pairwise

pytest_plugins = ["pytester"]

SIZES = [(4, 4, 11), (4, 4, 3, 10), (2, 2, 2), (2, 3, 4, 5), (5, 1, 3), (3, 3, 3, 3, 3), (1, 1, 1), (7, 2)]


def pairs(combinations):
    return {pair for one in combinations for pair in itertools.combinations(enumerate(one), 2)}


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_two_values_meet(sizes):
    whole = list(itertools.product(*map(range, sizes)))

    chosen = [whole[place] for place in pairwise(whole)]

    assert pairs(chosen) == pairs(whole)
    assert [set(values) for values in zip(*chosen, strict=True)] == [set(range(size)) for size in sizes]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_no_combination_is_chosen_for_nothing(sizes):
    whole = list(itertools.product(*map(range, sizes)))

    largest, second, *_ = sorted(sizes, reverse=True)

    assert largest * second <= len(pairwise(whole)) <= 2 * largest * second


def test_what_does_not_exist_is_not_missed():
    combinations = [one for one in itertools.product(range(3), repeat=3) if one[0] != one[1]]

    chosen = [combinations[place] for place in pairwise(combinations)]

    assert pairs(chosen) == pairs(combinations)


def test_the_choice_is_the_same_every_time():
    whole = list(itertools.product("abcd", "xyz", range(5)))

    assert pairwise(whole) == pairwise(list(whole)) == sorted(pairwise(whole))


ENGINES = """
import pytest

@pytest.fixture(params=["grpcio", "native"])
def engine(request):
    return request.param

@pytest.mark.process
def test_process(engine):
    pass

@pytest.mark.unit
def test_unit(engine):
    pass
"""


def test_files_of_processes_get_one_engine_each_and_no_engine_is_left_out(pytester):
    files = [pytester.makepyfile(**{f"test_{number}": ENGINES}) for number in range(20)]
    items, _ = pytester.inline_genitems()

    left_out = beyond_one_engine(items)

    assert {test.path for test in left_out} == set(files)
    assert sorted({test.name for test in left_out}) == ["test_process[grpcio]", "test_process[native]"]
    assert len(left_out) == len(files)
