"""Finds the rules that could match without trying them one by one.

Each rule stands under one of its conditions, the one that fewest rules share; a call looks under its own words.
What it finds there is tried in full, so that the index decides only how many rules are tried.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from authz.call.principal import Principal
from authz.policy.keys import Condition, Frequency, Keys, Word, conditions_of, headers_of, parts_of, paths_of
from authz.policy.rules import Rule, Words
from authz.policy.shelves import FEW, heaviest, shelved
from authz.runtime.text.document import Fault

MOST = 1_000
"""So many rules and patterns a call is compared with at the most: about a millisecond."""

OTHER = ""
"""An HTTP method that no rule names."""


class Index:
    """Rules in order, by what they ask for.

    Args:
        rules: the rules; their numbers are their positions.

    Attributes:
        rules: the same.

    """

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.rules = rules
        self._keys = Keys(rules)
        frequency = Frequency(part for rule in rules for part in parts_of(rule))
        self._headed_numbers = [number for number, rule in enumerate(rules) if _is_told_by_headers(rule, frequency)]
        headed = set(self._headed_numbers)
        others = (number for number in range(len(rules)) if number not in headed)

        def conditions(number: int) -> Iterator[Condition]:
            rule = rules[number]
            return chain(headers_of(rule) if number in headed else (), conditions_of(rule, frequency))

        self._shelves = shelved(others, conditions, frequency, len(rules))
        self._headed = shelved(self._headed_numbers, conditions, frequency, len(rules))
        self._headed_paths = _words_by_kind([paths_of(rules[number]) for number in self._headed_numbers])
        self._check()
        frequency.let_go()

    def let_go(self) -> Iterator[None]:
        """Free the rules, a part at each step: to do so at once would stop every thread for milliseconds.

        Who uses them still may go on; then the last of them frees what is left.
        """
        parts: list[object] = [*self.rules]
        for under in (*self._shelves.by.values(), *self._headed.by.values()):
            parts += under.values()
            del under
        del self
        while parts:
            parts.pop()
            yield

    def asks_headers(self, method: str) -> bool:
        """Say whether rules about ``method`` are found only with the headers of a call."""
        if self._headed_paths is None:
            return True
        if not self._headed_paths:
            return False
        asked = self._keys.of_method(method)
        return any(not words.isdisjoint(asked[kind]) for kind, words in self._headed_paths.items())

    def find(
        self, method: str, verb: str, principal: Principal, groups: Words, headers: Mapping[str, str] | None = None
    ) -> Iterator[Rule]:
        """Yield, in order, the rules that match, apart from their conditions on headers and peer.

        Args:
            method: what is called.
            verb: the HTTP method.
            principal: who calls.
            groups: of the principal's organization.
            headers: leave out rules that these do not match, where that is quick; without it, leave out none.

        """
        asked = self._keys.of_call(method, verb, principal, groups, headers or {})
        found = self._shelves.find(asked)
        if self._headed_numbers:
            found += self._headed_numbers if headers is None else self._headed.find(asked)
        rules = self.rules
        for number in sorted(set(found)) if len(found) > 1 else found:
            rule = rules[number]
            if rule.concerns(method, verb, principal, groups):
                yield rule

    def covering(self, rule: Rule, before: int | None = None) -> Rule | None:
        """Return the first rule that matches whatever ``rule`` matches, if there is one.

        Args:
            rule: any rule.
            before: the number of the rule before which it must stand; by default it may stand anywhere.

        """
        asked = self._keys.implied_by(rule)
        for number in sorted({*self._shelves.find(asked), *self._headed.find(asked)}):
            if before is not None and number >= before:
                return None
            if self.rules[number].covers(rule):
                return self.rules[number]
        return None

    def _check(self) -> None:
        weights = [rule.weight for rule in self.rules]
        for shelves in (self._shelves, self._headed):
            tried, number = heaviest(shelves, weights, self._keys.around)
            if tried > MOST:
                raise Fault(
                    f"rule {self.rules[number].name!a} is one of too many that are alike: a call would have to be "
                    f"compared with {tried} rules or patterns, and {MOST} are the most; name fewer, or have them "
                    "differ by an organization, a client, a group, a scope, a method or the whole value of a header",
                    number,
                )


def _is_told_by_headers(rule: Rule, frequency: Frequency) -> bool:
    """Say whether the headers that ``rule`` asks for are much rarer than all else that it asks for."""
    if not rule.headers:
        return False
    by_headers, others = (
        min(map(frequency.most, conditions), default=sys.maxsize)
        for conditions in (headers_of(rule), conditions_of(rule, frequency))
    )
    return others > FEW and by_headers < others


def _words_by_kind(conditions: list[Condition]) -> dict[str, set[Word]] | None:
    """Return the words of all ``conditions``; ``None`` if one of them is met by every call."""
    found: dict[str, set[Word]] = {}
    for condition in conditions:
        if not condition:
            return None
        for kind, words in condition:
            found.setdefault(kind, set()).update(words)
    return found
