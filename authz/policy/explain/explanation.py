"""An explanation in words of what a policy decides about a call.

Nothing is matched here: the engine that decides is asked about each condition, as a rule of its own.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

from authz.call.call import Call
from authz.call.principal import Principal
from authz.call.verb import is_verb
from authz.errors import PeerUnknownError, PermissionDeniedError
from authz.organizations.organization import Organization
from authz.policy.patterns import Patterns
from authz.policy.policy import Policy
from authz.policy.rules import PROTO, Rule, Words, headers_of
from authz.runtime.text.printable import printable

Verdict = Literal["public", "allowed", "denied", "suspended", "undecided"]
"""``undecided``: it depends on the caller's certificate, which is not known."""

_UNASKED: Mapping[Verdict, str] = {"public": "the method is public", "suspended": "the organization is suspended"}
# Only where rules name HTTP methods.
_MALFORMED = "request_malformed"
_MOST_LISTED = 8
_DENY, _PROTO, _ALLOW = "deny_rules", "proto", "allow_rules"
_PATHS = "request.paths"


class Ruling(NamedTuple):
    """What a policy decides.

    Args:
        verdict: the outcome, in a word.
        rule: the name of the rule that decided; empty if none did.
        reason: the refusal's; empty if the call is allowed.

    """

    verdict: Verdict
    rule: str = ""
    reason: str = ""

    @property
    def is_by_rules(self) -> bool:
        """Whether the rules were asked."""
        return self.verdict not in _UNASKED and self.reason != _MALFORMED

    @property
    def list(self) -> str:
        """The list in which the rule stands."""
        return list_of(self.rule, is_deny=self.verdict != "allowed") if self.rule else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleExplanation:
    """One rule, and why it did or did not match.

    Args:
        list: ``deny_rules``, ``proto`` or ``allow_rules``.
        name: the rule's.
        matches: whether it does; ``None`` if that depends on the caller's certificate, which is not known.
        failed: for each kind of condition, the first that does not hold or is not known to hold.

    """

    list: str
    name: str
    matches: bool | None
    failed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a policy decides about a call, and why.

    Args:
        method: what is called.
        verb: the HTTP method.
        organization: who calls; empty if that does not matter.
        is_listed: whether the policy's ``organizations`` has it.
        tenant: the owner's own id for it, or ``""``.
        groups: the groups that it belongs to, in order.
        is_suspended: whether every call of it is refused.
        quota: the name of its plan, or ``""``.
        ruling: what is decided.
        rules: every rule, and what the ``.proto`` asks for, in the order in which they apply; none for a public
            method.

    """

    method: str
    verb: str
    organization: str
    is_listed: bool
    tenant: str
    groups: tuple[str, ...]
    is_suspended: bool
    quota: str
    ruling: Ruling
    rules: tuple[RuleExplanation, ...]

    @property
    def decisive(self) -> str:
        """What decided, in one line."""
        verdict, rule = self.ruling.verdict, self.ruling.rule
        if self.ruling.list == _PROTO:
            missing = next(each.failed for each in self.rules if each.list == _PROTO)
            return (
                f"the .proto asks for more: {'; '.join(missing)}"
                if missing
                else "the caller has what the .proto asks for"
            )
        if rule:
            return f"rule {shown(rule)} of {self.ruling.list} matches"
        if verdict in _UNASKED:
            return f"{_UNASKED[verdict]}; no rule is asked"
        if self.ruling.reason == _MALFORMED:
            why = "a header may replace it" if is_verb(self.verb) else f"{shown(self.verb)} is not one in capitals"
            return f"servers may not agree about the HTTP method: {why}; no rule is asked"
        if verdict == "undecided":
            unknown = next(rule for rule in self.rules if rule.matches is None)
            return f"rule {shown(unknown.name)} of {unknown.list}: {'; '.join(unknown.failed)}"
        return self._nearest

    @property
    def _nearest(self) -> str:
        nearest = min((rule for rule in self.rules if rule.list == _ALLOW), key=_distance, default=None)
        if nearest is None:
            return "no .proto declares who may call it, and no rule allows it"
        return f"no rule allows it; the nearest, {shown(nearest.name)}: {'; '.join(nearest.failed)}"


def decide(policy: Policy, call: Call, principal: Principal, organization: Organization | None = None) -> Ruling:
    """Return what ``policy`` decides about ``call``, public methods included; the arguments are :func:`explain`'s."""
    if call.method in policy.public:
        return Ruling("public")
    try:
        return Ruling("allowed", policy.admit(call, principal, organization))
    except PeerUnknownError:
        return Ruling("undecided")
    except PermissionDeniedError as error:
        return Ruling("suspended" if error.reason == "organization_suspended" else "denied", error.rule, error.reason)


def explain(policy: Policy, call: Call, principal: Principal, organization: Organization | None = None) -> Explanation:
    """Return what ``policy`` decides about ``call``, and why each of its rules matched or did not.

    Args:
        policy: the policy.
        call: the call; if its ``peer`` is ``None``, conditions about the peer are not known to hold.
        principal: who makes it; ``ANONYMOUS`` will do for a public method.
        organization: what is known about the principal's, if that is more than ``policy`` lists.

    """
    listed = policy.organization(principal.org_id)
    organization = organization or listed
    ruling = decide(policy, call, principal, organization)
    question = _Question(call, principal, organization.groups)
    return Explanation(
        method=call.method,
        verb=call.verb,
        organization=principal.org_id,
        is_listed=principal.org_id in policy.organizations,
        tenant=organization.tenant,
        groups=tuple(sorted(organization.groups)),
        is_suspended=organization.is_suspended,
        # Only the policy has plans.
        quota="" if listed.quota is None else listed.quota.name,
        ruling=ruling,
        rules=() if ruling.verdict == "public" else tuple(map(question.explain, rules_of(policy, call.method))),
    )


def as_data(explanation: Explanation) -> dict[str, Any]:
    """Return ``explanation`` as plain data, ready for JSON."""
    report = asdict(explanation)
    ruling = report.pop("ruling")._asdict()
    return {**ruling, "list": explanation.ruling.list, "decisive": explanation.decisive, **report}


def conditions_of(rule: Rule) -> list[tuple[str, str]]:
    """Return the conditions of ``rule`` in words, each as what it is about and what it asks; none if it has none."""
    asked = [
        ("organization", rule.organizations),
        ("group", rule.groups),
        ("client", rule.clients),
        ("scopes", [" and ".join(map(shown, sorted(words))) for words in rule.scopes] or None),
        ("certificate like", None if rule.principals is None else _texts(rule.principals)),
        ("method", None if rule.paths is None else _texts(rule.paths)),
        ("HTTP method", rule.verbs),
        *((f"header {shown(name)} like", _texts(values)) for name, values in rule.headers),
    ]
    return [(kind, _alternatives(texts)) for kind, texts in asked if texts is not None]


class _Question:
    """One call, to be explained rule by rule."""

    def __init__(self, call: Call, principal: Principal, groups: Words) -> None:
        self._call, self._principal, self._groups = call, principal, groups
        self._headers = headers_of(call)

    def explain(self, rule: Rule) -> RuleExplanation:
        failed: dict[str, str] = {}
        matches: bool | None = True
        for kind, condition, failure in self._conditions(rule):
            try:
                holds = self._matches(condition)
            except PeerUnknownError:
                failed[kind] = f"{kind}: the caller's certificate is not known"
                matches = None if matches else False
                continue
            if not holds:
                failed.setdefault(kind, failure)
                matches = False
        of_list = list_of_rule(rule)
        # A .proto writes scopes, not source.scopes.
        prefix = "source." if of_list == _PROTO else ""
        texts = tuple(failure.removeprefix(prefix) for failure in failed.values())
        return RuleExplanation(list=of_list, name=rule.name, matches=matches, failed=texts)

    def _matches(self, rule: Rule) -> bool:
        call = self._call
        is_met = rule.concerns(call.method, call.verb, self._principal, self._groups)
        return is_met and rule.matches_rest(call, self._headers)

    def _conditions(self, rule: Rule) -> Iterator[tuple[str, Rule, str]]:
        """Yield the kind of each condition, a rule that asks for nothing else, and what to say if it does not hold."""
        alone, call, principal = Rule(name=rule.name, is_deny=rule.is_deny), self._call, self._principal
        if rule.organizations is not None:
            kind = "source.organizations"
            failure = f"{kind}: {_name(principal.org_id)} is not among {_listed(rule.organizations)}"
            yield kind, replace(alone, organizations=rule.organizations), failure
        if rule.groups is not None:
            kind = "source.groups"
            failure = f"{kind}: {_name(principal.org_id)} is in {_listed(self._groups)}, not in {_listed(rule.groups)}"
            yield kind, replace(alone, groups=rule.groups), failure
        if rule.clients is not None:
            kind = "source.clients"
            failure = f"{kind}: {_name(principal.client_id)} is not among {_listed(rule.clients)}"
            yield kind, replace(alone, clients=rule.clients), failure
        if rule.scopes:
            kind = "source.scopes"
            needed = " or ".join(" and ".join(map(shown, sorted(words))) for words in rule.scopes)
            failure = f"{kind}: holds {_listed(principal.scopes)}, needs {needed}"
            yield kind, replace(alone, scopes=rule.scopes), failure
        if rule.principals is not None:
            kind, names = "source.principals", () if call.peer is None else call.peer.principals
            failure = f"{kind}: {_listed(names)} does not match {_listed(_texts(rule.principals))}"
            yield kind, replace(alone, principals=rule.principals), failure
        if rule.paths is not None:
            kind = _PATHS
            failure = f"{kind}: {_name(call.method)} does not match {_listed(_texts(rule.paths))}"
            yield kind, replace(alone, paths=rule.paths), failure
        if rule.verbs is not None:
            kind = "request.methods"
            # Many servers answer a HEAD where they answer a GET.
            more = "; GET does not include it" if call.verb == "HEAD" and "GET" in rule.verbs else ""
            failure = f"{kind}: {_name(call.verb)} is not one of {_listed(rule.verbs)}{more}"
            yield kind, replace(alone, verbs=rule.verbs), failure
        for header, values in rule.headers:
            kind = "request.headers"
            # The header's value may be a secret, so it is not shown.
            sent = (
                f"the value sent does not match {_listed(_texts(values))}" if header in self._headers else "is not sent"
            )
            yield kind, replace(alone, headers=((header, values),)), f"{kind} {shown(header)}: {sent}"


def _distance(rule: RuleExplanation) -> tuple[bool, int]:
    # A rule about another method is further away than any rule about this one.
    return any(failure.startswith(_PATHS) for failure in rule.failed), len(rule.failed)


def rules_of(policy: Policy, method: str | None = None) -> list[Rule]:
    """Return the rules of ``policy``, those of the ``.proto`` included, in the order in which they apply.

    Args:
        policy: the policy.
        method: leave out what the ``.proto`` asks of the callers of other methods.

    """
    denies = [rule for rule in policy.rules if rule.is_deny]
    requirements = [rule for of_method, rule in policy.requirements.items() if method in (None, of_method)]
    allows = [rule for rule in policy.rules if not rule.is_deny]
    return [*denies, *requirements, *allows]


def list_of_rule(rule: Rule) -> str:
    """Return the list in which ``rule`` stands."""
    return list_of(rule.name, is_deny=rule.is_deny)


def list_of(rule: str, *, is_deny: bool) -> str:
    """Return the list in which the rule of that name stands, which denied or allowed a call."""
    if rule.startswith(PROTO):
        return _PROTO
    return _DENY if is_deny else _ALLOW


def impossible_paths(rule: Rule) -> list[str]:
    """Return the paths of ``rule`` that can match nothing, because all methods and HTTP paths begin with ``/``."""
    paths = _texts(rule.paths) if rule.paths else []
    return [path for path in paths if not path.startswith(("/", "*")) or path == "**"]


def shown(text: str) -> str:
    """Return untrusted ``text`` so that a terminal may show it; quoted unless every character is visible."""
    fit = printable(text)
    return fit if fit == text and text else f"'{fit}'"


def _name(text: str) -> str:
    return shown(text) if text else "none"


def _listed(texts: Iterable[str]) -> str:
    names = [shown(text) for text in sorted(texts)]
    more = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "") or "none"


def _alternatives(texts: Iterable[str]) -> str:
    names = [shown(text) for text in sorted(texts)]
    more = len(names) - _MOST_LISTED
    return " or ".join(names[:_MOST_LISTED]) + (f" or {more} more" if more > 0 else "")


def _texts(patterns: Patterns) -> list[str]:
    """Return the patterns as they were written."""
    return [
        *patterns.exact,
        *(f"{prefix}*" for prefix in patterns.prefixes),
        *(f"*{suffix}" for suffix in patterns.suffixes),
        *(["*"] if patterns.any_text else []),
    ]
