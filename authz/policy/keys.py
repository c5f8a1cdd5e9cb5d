"""What rules are looked up by: the words that they ask for, and those that a call has."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

from authz.call.principal import Principal
from authz.policy.ends import Ends
from authz.policy.rules import Rule, Words

ORGANIZATION, CLIENT, GROUP, SCOPE, VERB = "organization", "client", "group", "scope", "verb"
PATH, PREFIX, SUFFIX, HEADER = "path", "prefix", "suffix", "header"

NESTED = (PREFIX, SUFFIX)
"""Kinds of which a call has many words at once, each the beginning of the next."""

Word = str | tuple[str, str]
"""A word; of a header, its name and its value. A suffix is written backwards."""

Asked = Mapping[str, Collection[Word]]
"""Words by their kinds."""


_NO_WORDS: Words = frozenset()

Part = tuple[str, Collection[Word]]
"""Words of one kind."""

Condition = tuple[Part, ...]
"""A call that meets it has one of the words of one of its parts."""


class Keys:
    """The words of rules and calls.

    Args:
        rules: all rules that there will be.

    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        paths = [rule.paths for rule in rules if rule.paths is not None]
        self._prefixes = Ends(text for each in paths for text in each.prefixes)
        self._suffixes = Ends(text[::-1] for each in paths for text in each.suffixes)

    def of_call(self, method: str, verb: str, principal: Principal, groups: Words, headers: Mapping[str, str]) -> Asked:
        """Return the words of a call."""
        return {
            VERB: (verb,),
            ORGANIZATION: (principal.org_id,),
            CLIENT: (principal.client_id,),
            GROUP: groups,
            SCOPE: principal.scopes,
            HEADER: headers.items(),
            **self.of_method(method),
        }

    def of_method(self, method: str) -> dict[str, Collection[Word]]:
        """Return the words of the patterns that match ``method``, apart from ``*``."""
        return {PATH: (method,), PREFIX: [*self._prefixes.of(method)], SUFFIX: [*self._suffixes.of(method[::-1])]}

    def around(self, kind: str, word: Word) -> Iterable[Word]:
        """Return the words of a nested kind that every call with ``word`` has, it among them."""
        return (self._prefixes if kind == PREFIX else self._suffixes).of(str(word))

    def implied_by(self, rule: Rule) -> Asked:
        """Return words of which a rule that matches all that ``rule`` does has one in each of its conditions."""
        asked: dict[str, Collection[Word]] = {kind: (next(iter(words)),) for kind, words in _words(rule)}
        asked[SCOPE] = min(rule.scopes, key=len, default=_NO_WORDS)
        asked[HEADER] = [(name, next(iter(values.exact))) for name, values in rule.headers if values.exact]
        if rule.paths is None:
            return asked
        if rule.paths.exact:
            return asked | self.of_method(next(iter(rule.paths.exact)))
        for text in rule.paths.prefixes[:1]:
            return asked | {PREFIX: [*self._prefixes.of(text)]}
        return asked | {SUFFIX: [each for text in rule.paths.suffixes[:1] for each in self._suffixes.of(text[::-1])]}


class Frequency:
    """How many rules ask for a word.

    Args:
        parts: what they ask for.

    """

    def __init__(self, parts: Iterable[Part]) -> None:
        self._counts: dict[str, defaultdict[Word, int]] = {}
        for kind, words in parts:
            counts = self._counts.setdefault(kind, defaultdict(int))
            for word in words:
                counts[word] += 1

    def most(self, condition: Condition) -> int:
        """Return how many rules ask for the most frequent word of a condition."""
        most = 0
        for kind, words in condition:
            counts = self._counts[kind]
            for word in words:
                most = max(most, counts[word])
        return most

    def rarest(self, scopes: Words) -> str:
        """Return the scope that fewest rules ask for."""
        return min(sorted(scopes), key=self._counts[SCOPE].__getitem__) if len(scopes) > 1 else next(iter(scopes))

    def let_go(self) -> None:
        """Forget everything piece by piece: to free it at once would stop every thread for milliseconds."""
        for counts in self._counts.values():
            while counts:
                counts.popitem()


def conditions_of(rule: Rule, frequency: Frequency) -> Iterator[Condition]:
    """Yield the conditions by which ``rule`` can be found, apart from those on headers.

    Args:
        rule: the rule.
        frequency: tells which of several scopes that are needed together is the rarest, and looked up.

    """
    if parts := paths_of(rule):
        yield parts
    for part in _words(rule):
        yield (part,)
    if rule.scopes:
        yield ((SCOPE, dict.fromkeys([frequency.rarest(needed) for needed in rule.scopes])),)


def headers_of(rule: Rule) -> list[Condition]:
    """Return the conditions on headers by which ``rule`` can be found: those that name whole values."""
    return [
        ((HEADER, [(name, value) for value in values.exact]),)
        for name, values in rule.headers
        if not (values.prefixes or values.suffixes or values.any_text)
    ]


def paths_of(rule: Rule) -> Condition:
    """Return the methods that ``rule`` is about; none if it is about all."""
    paths = rule.paths
    if paths is None or paths.any_text:
        return ()
    parts: list[Part] = []
    if paths.exact:
        parts.append((PATH, paths.exact))
    if paths.prefixes:
        parts.append((PREFIX, paths.prefixes))
    if paths.suffixes:
        parts.append((SUFFIX, [text[::-1] for text in paths.suffixes]))
    return tuple(parts)


def parts_of(rule: Rule) -> list[Part]:
    """Return all that ``rule`` may be found by, for its frequency."""
    parts = [*_words(rule), *paths_of(rule)]
    parts += [(SCOPE, needed) for needed in rule.scopes]
    parts += [part for condition in headers_of(rule) for part in condition]
    return parts


def _words(rule: Rule) -> list[Part]:
    parts: list[Part] = []
    if rule.organizations:
        parts.append((ORGANIZATION, rule.organizations))
    if rule.clients:
        parts.append((CLIENT, rule.clients))
    if rule.groups:
        parts.append((GROUP, rule.groups))
    if rule.verbs:
        parts.append((VERB, rule.verbs))
    return parts
