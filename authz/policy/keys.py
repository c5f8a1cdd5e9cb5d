"""What rules are looked up by: the words that they ask for, and those that a call has."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from authz.call.principal import Principal
from authz.policy.ends import Ends
from authz.policy.patterns import Patterns
from authz.policy.rules import Rule, Words

ORGANIZATION, CLIENT, GROUP, SCOPE, VERB = "organization", "client", "group", "scope", "verb"
PATH, PREFIX, SUFFIX, HEADER = "path", "prefix", "suffix", "header"

Word = str | tuple[str, str]
"""A word; of a header, its name and its value. A suffix is written backwards."""

Asked = Mapping[str, Iterable[Word]]
"""Words by their kinds."""


class Part(NamedTuple):
    """Words of one kind; a call that meets the condition has one of them, or one of another part.

    Args:
        kind: of the words.
        words: at least one.

    """

    kind: str
    words: Iterable[Word]


Condition = tuple[Part, ...]


class Keys:
    """The words of rules and calls.

    Args:
        rules: all rules that there will be.

    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        paths = [rule.paths for rule in rules if rule.paths is not None]
        self._prefixes = Ends(text for each in paths for text in each.prefixes)
        self._suffixes = Ends(text[::-1] for each in paths for text in each.suffixes)

    def of_call(
        self, method: str, verb: str, principal: Principal, groups: Words, headers: Mapping[str, str]
    ) -> Asked:
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

    def of_method(self, method: str) -> dict[str, Iterable[Word]]:
        """Return the words of the patterns that match ``method``, apart from ``*``."""
        return {PATH: (method,), PREFIX: [*self._prefixes.of(method)], SUFFIX: [*self._suffixes.of(method[::-1])]}

    def around(self, kind: str, word: Word) -> Iterable[Word]:
        """Return the words that every call with ``word`` has for the same reason, it among them."""
        ends = {PREFIX: self._prefixes, SUFFIX: self._suffixes}.get(kind)
        return (word,) if ends is None or not isinstance(word, str) else ends.of(word)

    def implied_by(self, rule: Rule) -> Asked:
        """Return words of which a rule that matches all that ``rule`` does has one in each of its conditions."""
        asked: dict[str, Iterable[Word]] = {kind: (next(iter(words)),) for kind, words in _words(rule)}
        asked[SCOPE] = min(rule.scopes, key=len, default=())
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
        self._counts: dict[str, dict[Word, int]] = {}
        for kind, words in parts:
            counts = self._counts.setdefault(kind, {})
            for word in words:
                counts[word] = counts.get(word, 0) + 1

    def most(self, condition: Condition) -> int:
        """Return how many rules ask for the most frequent word of a condition."""
        return max([max(map(self._counts[kind].__getitem__, words)) for kind, words in condition])

    def rarest(self, scopes: Words) -> str:
        """Return the scope that fewest rules ask for."""
        return min(sorted(scopes), key=self._counts[SCOPE].__getitem__) if len(scopes) > 1 else next(iter(scopes))

    def let_go(self) -> None:
        """Forget everything piece by piece: to free it at once would stop every thread for milliseconds."""
        for counts in self._counts.values():
            while counts:
                counts.popitem()


def conditions_of(rule: Rule, frequency: Frequency) -> list[Condition]:
    """Return the conditions by which ``rule`` can be found, apart from those on headers.

    Args:
        rule: the rule.
        frequency: tells which of several scopes that are needed together is the rarest, and looked up.

    """
    found: list[Condition] = [(part,) for part in _words(rule)]
    if rule.scopes:
        found.append((Part(SCOPE, dict.fromkeys(map(frequency.rarest, rule.scopes))),))
    if parts := paths_of(rule):
        found.append(parts)
    return found


def headers_of(rule: Rule) -> list[Condition]:
    """Return the conditions on headers by which ``rule`` can be found: those that name whole values."""
    return [
        (Part(HEADER, [(name, value) for value in values.exact]),)
        for name, values in rule.headers
        if not (values.prefixes or values.suffixes or values.any_text)
    ]


def parts_of(rule: Rule) -> Iterator[Part]:
    """Yield all that ``rule`` may be found by, for its frequency."""
    yield from _words(rule)
    yield from (Part(SCOPE, needed) for needed in rule.scopes)
    yield from paths_of(rule)
    for condition in headers_of(rule):
        yield from condition


def paths_of(rule: Rule) -> Condition:
    """Return the methods that ``rule`` is about; none if it is about all."""
    if rule.paths is None or rule.paths.any_text:
        return ()
    return tuple(_patterns(rule.paths))


def _patterns(paths: Patterns) -> Iterator[Part]:
    if paths.exact:
        yield Part(PATH, paths.exact)
    if paths.prefixes:
        yield Part(PREFIX, paths.prefixes)
    if paths.suffixes:
        yield Part(SUFFIX, [text[::-1] for text in paths.suffixes])


def _words(rule: Rule) -> list[Part]:
    asked = (ORGANIZATION, rule.organizations), (CLIENT, rule.clients), (GROUP, rule.groups), (VERB, rule.verbs)
    return [Part(kind, words) for kind, words in asked if words]
