"""Puts rules where calls look for them: each under one of its conditions, the one that fewest others share."""

from collections.abc import Callable, Iterable, Sequence
from typing import Union

from authz.policy.keys import HEADER, Asked, Condition, Frequency, Word

FEW = 64
"""So many rules under one word are not divided further."""

_DEPTH = 16
# Envoy takes no more from a call.
_HEADERS = 100

Numbers = tuple[int, ...]
Shelf = Union[Numbers, "Shelves"]
Conditions = Callable[[int], Sequence[Condition]]
"""Returns the conditions of a rule, by its number."""

Around = Callable[[str, Word], Iterable[Word]]


class Shelves:
    """Rules, by number, each under the words of one condition: a call that meets it has one of them.

    Attributes:
        rest: those without such a condition.
        by: the others, by kind and word; where they are many, divided further.

    """

    __slots__ = ("by", "rest")

    def __init__(self, rest: Numbers, by: dict[str, dict[Word, Shelf]]) -> None:
        self.rest, self.by = rest, by

    def find(self, asked: Asked) -> list[int]:
        """Return the rules that a call with these words may match, in any order, some of them perhaps twice."""
        found = [*self.rest]
        for kind, shelves in self.by.items():
            for word in asked.get(kind, ()):
                shelf = shelves.get(word)
                if type(shelf) is tuple:
                    found += shelf
                elif shelf is not None:
                    found += shelf.find(asked)
        return found


def shelved(
    numbers: Iterable[int], conditions: Conditions, frequency: Frequency, among: int, depth: int = 0
) -> Shelves:
    """Put each of some rules under the condition whose words are the rarest.

    Args:
        numbers: of the rules, in order.
        conditions: theirs.
        frequency: how many rules ask for a word.
        among: of how many rules that is; a word that all of them ask for tells none from the others.
        depth: how many words they share.

    """
    rest: list[int] = []
    by: dict[str, dict[Word, list[int]]] = {}
    for number in numbers:
        best: Condition = ()
        fewest = among
        for condition in conditions(number):
            if (most := frequency.most(condition)) < fewest:
                best, fewest = condition, most
        for kind, words in best:
            under = by.setdefault(kind, {})
            for word in words:
                under.setdefault(word, []).append(number)
        if not best:
            rest.append(number)
    shelves: dict[str, dict[Word, Shelf]] = {}
    for kind, under in by.items():
        shelves[kind] = {word: _divided(found, conditions, depth + 1) for word, found in under.items()}
    return Shelves(tuple(rest), shelves)


def _divided(numbers: list[int], conditions: Conditions, depth: int) -> Shelf:
    if len(numbers) <= FEW or depth == _DEPTH:
        return tuple(numbers)

    def single(number: int) -> list[Condition]:
        # With several words a rule would stand in several places, and these would multiply from depth to depth.
        return [each for each in conditions(number) if len(each) == len([*each[0].words]) == 1]

    frequency = Frequency(part for number in numbers for (part,) in single(number))
    shelves = shelved(numbers, single, frequency, len(numbers), depth)
    return shelves if shelves.by else shelves.rest


def heaviest(shelf: Shelf, weight: Callable[[int], int], around: Around) -> tuple[int, int]:
    """Return how much one call may find, if it has one word of each kind; and one of the rules that are most of it.

    Args:
        shelf: where it looks.
        weight: of a rule, by number.
        around: returns the words that a call with a word of a kind has, too, for the same reason.

    """
    if type(shelf) is tuple:
        return sum([weight(number) for number in shelf]), shelf[-1] if shelf else -1
    parts = [heaviest(shelf.rest, weight, around)]
    for kind, under in shelf.by.items():
        found = {word: heaviest(each, weight, around) for word, each in under.items()}
        most: dict[str, tuple[int, int]] = {}
        for word, (_, number) in found.items():
            together = sum([found[other][0] for other in around(kind, word) if other in found])
            # A call has many headers, but each of them once.
            name = word[0] if kind == HEADER else ""
            most[name] = max(most.get(name, (0, -1)), (together, number))
        parts += sorted(most.values())[-_HEADERS:]
    return sum([each for each, _ in parts]), max(parts)[1]
