"""Turns a document that has been checked against the schema into rules that make sense together."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from authz.policy.index import Index
from authz.policy.rules import PROTO, Rule, Shared, rule_from
from authz.policy.text.organizations import Organizations
from authz.policy.text.schema import KNOWN_LOGGERS
from authz.runtime.text.document import Document, Fault
from authz.runtime.text.schema import did_you_mean


def rules_from(document: Document, names: "Names") -> tuple[Index, Index]:
    """Return the rules that deny, and those that allow; a document that was read loses what they are made of.

    Args:
        document: the document.
        names: what they may name.

    Raises:
        Fault: a rule names something that does not exist, or never decides anything, or too many are alike.

    """
    shared = Shared()
    denies, allows = [_section(section, document, names, shared) for section in ("deny_rules", "allow_rules")]
    shared.let_go()
    return denies, allows


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


def _section(section: str, document: Document, names: "Names", shared: Shared) -> Index:
    try:
        index = Index(_rules(document.taken(section), names, shared, is_deny=section == "deny_rules"))
        for number, rule in enumerate(index.rules):
            _check_use(number, rule, index)
    except Fault as fault:
        raise fault.within(section) from None
    return index


def _rules(given: Iterable[Mapping[str, Any]], names: "Names", shared: Shared, *, is_deny: bool) -> tuple[Rule, ...]:
    rules: dict[str, Rule] = {}
    for number, data in enumerate(given):
        try:
            rule = rule_from(data, shared, is_deny=is_deny)
            names.check(data.get("source", {}))
            _check_name(rule.name, rules)
        except Fault as fault:
            raise fault.within(number) from None
        rules[rule.name] = rule
    return tuple(rules.values())


def _check_name(name: str, earlier: Collection[str]) -> None:
    if name in earlier:
        raise Fault(f"there is another rule with the name {name!a}", "name")
    if name.startswith(PROTO):
        raise Fault(f"{name!a} would look like a rule from a .proto; choose another name", "name")


def _check_use(number: int, rule: Rule, index: Index) -> None:
    covering = index.covering(rule, number)
    if covering is not None:
        raise Fault(
            f"rule {rule.name!a} never decides: rule {covering.name!a} before it matches all that it does", number
        )


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
