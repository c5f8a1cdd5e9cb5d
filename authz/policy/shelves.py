"""Puts rules where calls look for them: each under one of its conditions, the one that fewest others share."""

import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import Union

from authz.call.call import MAX_ENTRIES
from authz.policy.keys import GROUP, HEADER, NESTED, SCOPE, Asked, Condition, Frequency, Word

FEW = 16
"""So many rules under one word are not divided further."""

# With so few beside it, a rule need not be looked for by a rarer word.
_ENOUGH = 4
_DEPTH = 16
# What one call has, at the most or usually, of a kind of which it may have several words.
_SEVERAL = {GROUP: 8, SCOPE: 8, HEADER: MAX_ENTRIES}

Numbers = tuple[int, ...]
Shelf = Union[Numbers, "Shelves"]
Conditions = Callable[[int], Iterable[Condition]]
"""Returns the conditions of a rule, by its number."""

Load = tuple[int, int]
"""How much rules weigh together, and the number of one of them."""

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
                if isinstance(shelf, tuple):
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
                if most <= _ENOUGH:
                    break
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
        return [each for each in conditions(number) if sum([len(words) for _, words in each]) == 1]

    frequency = Frequency(part for number in numbers for (part,) in single(number))
    shelves = shelved(numbers, single, frequency, len(numbers), depth)
    return shelves if shelves.by else shelves.rest


def heaviest(shelf: Shelf, weights: Sequence[int], around: Around) -> Load:
    """Return how much one call may find, and one of the rules that are most of it.

    Args:
        shelf: where it looks.
        weights: of the rules, by number.
        around: returns the words of a kind that every call with a word has, too.

    """
    if isinstance(shelf, tuple):
        return sum([weights[number] for number in shelf]), shelf[-1] if shelf else -1
    parts = [heaviest(shelf.rest, weights, around)]
    for kind, under in shelf.by.items():
        loads = {word: heaviest(each, weights, around) for word, each in under.items()}
        if kind in NESTED:
            together = {word: [loads[each] for each in around(kind, word) if each in loads] for word in loads}
            parts.append(max((sum([load for load, _ in each]), max(each)[1]) for each in together.values()))
        else:
            # Of one header a call has one value.
            most: dict[str, Load] = {}
            for word, load in loads.items():
                name = word[0] if isinstance(word, tuple) else word if kind in _SEVERAL else ""
                most[name] = max(most.get(name, load), load)
            parts += heapq.nlargest(_SEVERAL.get(kind, 1), most.values())
    return sum([load for load, _ in parts]), max(parts)[1]
