"""Of many patterns, the one that counts is the one that a reading of them, one by one, finds; only it is quicker."""

from typing import SupportsIndex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.call.requirements import Assurance
from authz.policy import Policy
from authz.policy.closest import Closest
from tests.policy.test_properties import is_like

# Few letters, so that many patterns match, and some of them are equally long.
words = st.text("ab/*", max_size=5)
patterns = st.lists(st.one_of(words, words.map("{}*".format), words.map("*{}".format)), max_size=40, unique=True)
MANY = [f"/shop.v1.Service{number:04d}/*" for number in range(1000)]


def closest_of(patterns: list[str], method: str) -> str | None:
    """Return the pattern that counts, as documents say: an exact name, else the longest, else the first."""
    matching = [pattern for pattern in patterns if is_like(pattern, method)]
    if method in matching and not (method.startswith("*") or method.endswith("*")):
        return method
    wild = [pattern for pattern in matching if pattern.startswith("*") or pattern.endswith("*")]
    return max(wild, key=len, default=None)


@given(patterns, st.lists(words, min_size=1))
def test_the_pattern_that_counts_is_the_one_that_reading_all_of_them_finds(
    given: list[str], methods: list[str]
) -> None:
    closest = Closest(given)

    assert [closest.of(method) for method in methods] == [closest_of(given, method) for method in methods]


@given(patterns, st.lists(words, min_size=1))
def test_a_policy_asks_the_issuer_as_the_pattern_that_counts_says(given: list[str], methods: list[str]) -> None:
    given = [pattern for pattern in given if pattern.startswith(("/", "*"))]
    ages = {pattern: {"max_age": number / 2} for number, pattern in enumerate(given)}
    policy = Policy.from_document({"name": "p", "allow_rules": [{"name": "all"}], "introspect": ages})

    for method in methods:
        pattern = closest_of(given, method)
        expected = None if pattern is None else Assurance(max_age=ages[pattern]["max_age"])
        assert policy.assurance(method) == expected


class Counted(str):
    """A text that counts how often it, or a part of it, is compared."""

    __slots__ = ()
    times = 0

    def startswith(self, *arguments: object) -> bool:  # type: ignore[override]
        Counted.times += 1
        return super().startswith(*arguments)  # type: ignore[arg-type]

    def __lt__(self, other: str) -> bool:
        Counted.times += 1
        return super().__lt__(other)

    def __getitem__(self, key: SupportsIndex | slice) -> "Counted":  # type: ignore[override]
        return Counted(super().__getitem__(key))


@pytest.mark.parametrize("given", [MANY, [pattern[::-1] for pattern in MANY]], ids=["prefixes", "suffixes"])
def test_a_method_is_compared_with_few_of_a_thousand_patterns(given: list[str]) -> None:
    closest, method = Closest(given), Counted(given[700].strip("*"))
    Counted.times = 0

    assert closest.of(method) == given[700]
    assert 0 < Counted.times <= 2 * len(MANY).bit_length()
