"""Finds the rules that could match without trying them one by one.

A set of rules is an integer with one bit for each rule, the lowest for the first.
For a method and a caller, a few integers are looked up and combined with ``&``:
the bits that are left are the rules worth trying.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from authz.call.principal import Principal
from authz.policy.patterns import Patterns
from authz.policy.rules import Rule, Words

OTHER = ""
"""An HTTP method that no rule names."""


class Index:
    """The rules, by what they ask for.

    Rules are added in order; their numbers are their positions.
    """

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._rules: list[Rule] = []
        self._paths = _Paths()
        self._verbs, self._organizations, self._groups, self._clients = _Words(), _Words(), _Words(), _Words()
        for rule in rules:
            self.add(rule)

    def add(self, rule: Rule) -> None:
        """Add one rule after the others."""
        bit = 1 << len(self._rules)
        self._rules.append(rule)
        self._paths.add(bit, rule.paths)
        self._verbs.add(bit, rule.verbs)
        self._organizations.add(bit, rule.organizations)
        self._groups.add(bit, rule.groups)
        self._clients.add(bit, rule.clients)

    def find(self, method: str, verb: str, principal: Principal, groups: Words) -> Iterator[Rule]:
        """Yield, in order, the rules that match, apart from their conditions on headers and peer.

        Args:
            method: what is called.
            verb: the HTTP method.
            principal: who calls.
            groups: of the principal's organization.

        """
        mask = self._paths.of(method) & self._organizations.of(principal.org_id) & self._clients.of(principal.client_id)
        if mask:
            mask &= self._groups.of_any(groups) & self._verbs.of(verb)
        return (rule for rule in self._of(mask) if rule.has_scopes(principal.scopes))

    def covering(self, rule: Rule) -> Rule | None:
        """Return the first rule that matches whatever ``rule`` matches, if there is one."""
        mask = self._paths.covering(rule.paths) & self._organizations.covering(rule.organizations)
        if mask:
            mask &= self._groups.covering(rule.groups) & self._clients.covering(rule.clients)
            mask &= self._verbs.covering(rule.verbs)
        return next((other for other in self._of(mask) if other.covers_rest(rule)), None)

    def _of(self, mask: int) -> Iterator[Rule]:
        while mask:
            lowest = mask & -mask
            yield self._rules[lowest.bit_length() - 1]
            mask ^= lowest


class _Words:
    """Rules by the words that they name; a call must have one of them."""

    def __init__(self) -> None:
        self._asking: defaultdict[str, int] = defaultdict(int)
        self._indifferent = 0

    def add(self, bit: int, words: Words | None) -> None:
        if words is None:
            self._indifferent |= bit
        for word in words or ():
            self._asking[word] |= bit

    def of(self, word: str) -> int:
        return self._asking.get(word, 0) | self._indifferent

    def of_any(self, words: Words) -> int:
        mask = self._indifferent
        for word in words:
            mask |= self._asking.get(word, 0)
        return mask

    def covering(self, words: Words | None) -> int:
        return self._indifferent if words is None else _all(map(self.of, words))


class _Paths:
    """Rules by the patterns of methods that they name; one of them must match."""

    def __init__(self) -> None:
        self._exact: defaultdict[str, int] = defaultdict(int)
        self._prefixes, self._suffixes = _Ends(), _Ends()
        self._any_text = 0
        self._indifferent = 0

    def add(self, bit: int, patterns: Patterns | None) -> None:
        if patterns is None:
            self._indifferent |= bit
            return
        for text in patterns.exact:
            self._exact[text] |= bit
        for text in patterns.prefixes:
            self._prefixes.add(bit, text)
        for text in patterns.suffixes:
            self._suffixes.add(bit, text[::-1])
        if patterns.any_text:
            self._any_text |= bit

    def of(self, method: str) -> int:
        mask = self._indifferent | self._exact.get(method, 0)
        mask |= self._prefixes.of(method) | self._suffixes.of(method[::-1])
        return mask | self._any_text if method else mask

    def covering(self, patterns: Patterns | None) -> int:
        if patterns is None:
            return self._indifferent
        whatever = self._indifferent | self._any_text
        masks = [self.of(text) for text in patterns.exact]
        masks += [whatever | self._prefixes.of(text) for text in patterns.prefixes]
        masks += [whatever | self._suffixes.of(text[::-1]) for text in patterns.suffixes]
        return _all([*masks, whatever] if patterns.any_text else masks)


class _Ends:
    """Rules by prefixes of a text: one look-up for every length of a prefix."""

    def __init__(self) -> None:
        self._masks: defaultdict[str, int] = defaultdict(int)
        self._lengths: Sequence[int] = ()

    def add(self, bit: int, text: str) -> None:
        self._masks[text] |= bit
        if len(text) not in self._lengths:
            self._lengths = sorted([*self._lengths, len(text)])

    def of(self, text: str) -> int:
        mask = 0
        for length in self._lengths:
            if length > len(text):
                break
            mask |= self._masks.get(text[:length], 0)
        return mask


def _all(masks: Iterable[int]) -> int:
    mask = -1
    for other in masks:
        mask &= other
    return mask
