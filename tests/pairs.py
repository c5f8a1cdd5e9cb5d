"""A choice among the combinations of a test's parameters, in which every two values that meet at all still meet.

And of the engines of ``authz serve`` one for each file, where a test starts processes.
"""

import itertools
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from zlib import crc32

import pytest

_Combination = tuple[Hashable, ...]
_Pair = tuple[tuple[int, Hashable], ...]


def pairwise(combinations: Sequence[_Combination]) -> list[int]:
    """Return the places of combinations that have, between them, every pair of values that any of them has.

    Greedy, as in AETG (Cohen et al., "The AETG System", IEEE TSE 23(7), 1997): always the first of those that have the
    most pairs which no chosen one has. The same combinations give the same choice.

    Args:
        combinations: each with a value for every parameter, in the same order.

    """
    pairs = [_pairs_of(combination) for combination in combinations]
    missing = set().union(*pairs)
    left = dict(enumerate(pairs))
    chosen = []
    while missing:
        best = max(left, key=lambda place: len(left[place] & missing))
        missing -= left.pop(best)
        chosen.append(best)
    return sorted(chosen)


def combinations_beyond_pairs(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return the tests of three or more parameters that a pairwise choice does without."""
    left_out: list[pytest.Item] = []
    for _, group in itertools.groupby(sorted(_with_many_parameters(items), key=_name), key=_name):
        tests = list(group)
        chosen = set(pairwise([_values(test) for test in tests]))
        left_out += [test for place, test in enumerate(tests) if place not in chosen]
    return left_out


def beyond_one_engine(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return the tests of processes that a file has for other engines than the one that it is given here.

    Which one that is depends on the name of the file: each engine gets about half of the files.
    """
    tests = [item for item in items if isinstance(item, pytest.Function) and _engine(item)]
    engines: dict[Path, set[str]] = {}
    for test in tests:
        engines.setdefault(test.path, set()).add(_engine(test))
    chosen = {path: sorted(names)[crc32(path.name.encode()) % len(names)] for path, names in engines.items()}
    return [test for test in tests if _engine(test) != chosen[test.path]]


def _engine(item: pytest.Function) -> str:
    """Return the engine of ``authz serve`` that a test starts in a process, if it has one as a parameter."""
    is_process = item.get_closest_marker("process") or item.get_closest_marker("envoy")
    return str(item.callspec.params.get("engine", "")) if is_process and hasattr(item, "callspec") else ""


def _pairs_of(combination: _Combination) -> frozenset[_Pair]:
    return frozenset(itertools.combinations(enumerate(combination), 2))


def _with_many_parameters(items: Iterable[pytest.Item]) -> list[pytest.Function]:
    return [item for item in items if isinstance(item, pytest.Function) and len(_values(item)) > 2]


def _values(item: pytest.Function) -> _Combination:
    """Return the values of the parameters: of a table that ``parametrize`` is given, each row is one value."""
    if not hasattr(item, "callspec"):
        return ()
    # They need not be equal to anything, or have a hash; but each is one object in all combinations.
    values = {name: id(value) for name, value in item.callspec.params.items()}
    tables = [_names_of(mark) for mark in item.iter_markers("parametrize")]
    rows = [tuple(values.pop(name) for name in names) for names in tables]
    return (*rows, *values.values())


def _names_of(mark: pytest.Mark) -> list[str]:
    names = mark.args[0]
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)


def _name(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]
