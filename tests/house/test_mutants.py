"""The mistakes of ``make mutants`` still fit the code that they are to be made in."""

import re
import shlex

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


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_the_tests_that_a_mistake_selects_are_there(mistake: Mistake) -> None:
    """Else its tests would end without a verdict, and so would all mistakes after it."""
    *files, words = shlex.split(mistake.tests) if " -k " in mistake.tests else [*shlex.split(mistake.tests), ""]
    paths = [ROOT / file.partition("::")[0] for file in files if file.startswith("tests/")]
    # The names of parameters may stand in modules beside the tests.
    texts = [each for path in paths for each in (path if path.is_dir() else path.parent).rglob("*.py")]
    text = "".join(each.read_text(encoding="utf-8").lower() for each in texts)

    assert [word for word in re.findall(r"[a-z0-9_]+", words.lower()) if word not in text] == []
