"""Turns a document that has been checked against the schema into rules that make sense together."""

import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from authz.call.requirements import Assurance
from authz.policy.index import Index
from authz.policy.patterns import Patterns
from authz.policy.rules import PROTO, Rule, rule_from
from authz.policy.text.organizations import Organizations
from authz.policy.text.schema import KNOWN_LOGGERS
from authz.runtime.text.document import Fault
from authz.runtime.text.schema import did_you_mean


def rules_from(data: Mapping[str, Any], names: "Names") -> tuple[Rule, ...]:
    """Return the rules, in the order in which they apply.

    Args:
        data: the document.
        names: what they may name.

    Raises:
        Fault: a rule names something that does not exist, or never decides anything.

    """
    return tuple(
        itertools.chain.from_iterable(
            _section(section, data.get(section, ()), names, is_deny=section == "deny_rules")
            for section in ("deny_rules", "allow_rules")
        )
    )


def assurances_from(data: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[Patterns, Assurance], ...]:
    """Return what ``introspect`` says, with the pattern that names a method most closely first."""
    return tuple((Patterns.of([pattern]), Assurance(**data[pattern])) for pattern in closest_first(data))


def closest_first(patterns: Iterable[str]) -> list[str]:
    """Return the patterns of ``introspect`` in the order in which they count."""
    return sorted(patterns, key=lambda pattern: (pattern.startswith("*") or pattern.endswith("*"), -len(pattern)))


def check_alone(data: Mapping[str, Any]) -> None:
    """Check a file that is not combined with ``.proto`` files.

    Raises:
        Fault: it needs them.

    """
    if "override" in data:
        raise Fault("'override' does nothing without .proto files that declare access; leave it out", "override")
    if "allow_rules" not in data:
        raise Fault("'allow_rules' is missing; it may be left out only with --descriptors that declare access")


def check_loggers(data: Mapping[str, Any]) -> None:
    """Check that every audit logger is known, or optional (gRFC A59).

    Raises:
        Fault: one is neither.

    """
    loggers = data.get("audit_logging_options", {}).get("audit_loggers", ())
    for index, logger in enumerate(loggers):
        if logger["name"] not in KNOWN_LOGGERS and not logger.get("is_optional", False):
            raise Fault(
                f"unknown audit logger {logger['name']!a}; set is_optional: true to ignore it",
                *("audit_logging_options", "audit_loggers", index, "name"),
            )


def _section(section: str, given: Collection[Mapping[str, Any]], names: "Names", *, is_deny: bool) -> list[Rule]:
    rules: dict[str, Rule] = {}
    earlier = Index()
    for number, data in enumerate(given):
        try:
            rule = rule_from(data, is_deny=is_deny)
            names.check(data.get("source", {}))
            _check_use(rule, rules, earlier.covering(rule))
        except Fault as fault:
            raise fault.within(section, number) from None
        rules[rule.name] = rule
        earlier.add(rule)
    return list(rules.values())


def _check_use(rule: Rule, earlier: Collection[str], covering: Rule | None) -> None:
    if rule.name in earlier:
        raise Fault(f"there is another rule with the name {rule.name!a}", "name")
    if rule.name.startswith(PROTO):
        raise Fault(f"{rule.name!a} would look like a rule from a .proto; choose another name", "name")
    if covering is not None:
        raise Fault(f"rule {rule.name!a} never decides: rule {covering.name!a} before it matches all that it does")


class Names:
    """The organizations and groups that rules, and ``.proto`` files, may name.

    Args:
        known: the organizations.
        groups: more groups.

    Attributes:
        are_given: whether there are any.

    """

    def __init__(self, known: Organizations, groups: Collection[str]) -> None:
        self._organizations = known.listing
        self._groups = known.groups.union(groups)
        self.are_given = bool(self._organizations or groups)

    def check(self, source: Mapping[str, Any]) -> None:
        """Check the ``source`` of a rule.

        Raises:
            Fault: it names something that does not exist.

        """
        # A file without a list of organizations does not say which exist.
        if self._organizations:
            _check_known("organization", self._organizations, source, "organizations does not list it")
        _check_known("group", self._groups, source, "no organization is in it, and groups does not list it")


def _check_known(kind: str, known: Collection[str], source: Mapping[str, Any], otherwise: str) -> None:
    key = f"{kind}s"
    for index, name in enumerate(source.get(key, ())):
        if name not in known:
            raise Fault(f"unknown {kind} {name!a}{did_you_mean(name, known) or f'; {otherwise}'}", "source", key, index)
