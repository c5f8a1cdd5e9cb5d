"""The mistakes of ``make mutants`` still fit the code that they are to be made in."""

import pytest

from mutants.mistakes import MISTAKES, ROOT, Mistake

LEAST = 15


def test_there_are_enough_of_them() -> None:
    assert len(MISTAKES) >= LEAST
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_can_be_made_and_its_tests_are_there(mistake: Mistake) -> None:
    right = (ROOT / mistake.file).read_text(encoding="utf-8")

    assert mistake.made_in(right) != right
    assert all((ROOT / test).is_file() for test in mistake.tests.split() if test.startswith("tests/"))
