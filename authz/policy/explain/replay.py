"""What another policy would have decided about the calls in a decision log."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from authz.call.call import Call
from authz.call.memory import Memory
from authz.call.principal import Principal
from authz.decisions.reading import decisions_in
from authz.policy.explain.explanation import decide
from authz.policy.policy import Policy
from authz.policy.rules import Rule

_REMEMBERED = 10_000
_OF_POLICIES = frozenset({"policy_denied", "organization_suspended"})
_OF_SCOPES = "insufficient_scope"

NO_TOKEN = "token needed"  # noqa: S105 - a word for people
"""The verdict on a call without a token to a method that is not public."""


class Change(NamedTuple):
    """One kind of call about which the two policies differ.

    Args:
        method: what was called.
        organization: who called; empty without a token.
        old: the verdict and the rule of the old policy.
        new: those of the new one.
        verb: by which HTTP method.

    """

    method: str
    organization: str
    old: tuple[str, str]
    new: tuple[str, str]
    verb: str = "POST"


class Replay:
    """Replay decisions through two policies, and count what would change.

    Attributes:
        changes: how often each kind of call would be decided otherwise.
        replayed: how many decisions both policies decided.
        anonymous: how many have no organization, for lack of a valid token, and no public method in either policy.
        refused: how many were refused, or left undecided, for reasons that no policy changes.
        conditional: how many depend on headers or on the caller's certificate, which the log does not hold.
        unreadable: how many lines are not decisions.
        surprising: how many replayed decisions the old policy would not make.

    """

    def __init__(self, old: Policy, new: Policy) -> None:
        self._old, self._new = _Replayed(old), _Replayed(new)
        self.changes: Counter[Change] = Counter()
        self.replayed = self.anonymous = self.refused = self.conditional = self.unreadable = self.surprising = 0

    @property
    def readable(self) -> int:
        """How many decisions there were."""
        return self.replayed + self.anonymous + self.refused + self.conditional

    def feed(self, lines: Iterable[bytes]) -> None:
        """Take in lines of a log, one at a time."""
        for decision in decisions_in(lines, _Decision.of):
            if decision is None:
                self.unreadable += 1
            else:
                self._take(decision)

    def _take(self, decision: "_Decision") -> None:
        old, new = self._old.decide(decision), self._new.decide(decision)
        if decision.is_settled:
            self.refused += 1
        elif old.verdict == new.verdict == NO_TOKEN:
            self.anonymous += 1
        elif (old.depends_on or new.depends_on) and old != new:
            self.conditional += 1
        else:
            self.replayed += 1
            self._compare(decision, old, new)

    def _compare(self, decision: "_Decision", old: "_Outcome", new: "_Outcome") -> None:
        if not old.depends_on and decision.logged != (old.is_allowed, old.rule):
            self.surprising += 1
        if old != new:
            outcomes = (old.verdict, old.rule), (new.verdict, new.rule)
            self.changes[Change(decision.method, decision.organization, *outcomes, decision.verb)] += 1


class _Decision(NamedTuple):
    """One line of the log."""

    method: str
    verb: str
    organization: str
    client: str
    scopes: frozenset[str]
    logged: tuple[bool, str]
    is_settled: bool
    """Whether a known caller was refused for another reason than the policy."""

    @classmethod
    def of(cls, data: Any) -> "_Decision":
        texts = [data[key] for key in ("method", "organization", "client", "verdict", "reason", "rule")]
        # Older logs do not have it.
        verb = data.get("verb", "POST")
        scopes = data["scopes"]
        if not (isinstance(scopes, list) and all(isinstance(text, str) for text in (*texts, verb, *scopes))):
            raise TypeError
        method, organization, client, verdict, reason, rule = texts
        is_allowed = verdict == "allowed"
        # Routes ask for scopes, too, but name no rule.
        is_of_policy = reason in _OF_POLICIES or (reason == _OF_SCOPES and bool(rule))
        is_settled = bool(organization) and not is_allowed and not is_of_policy
        return cls(method, verb, organization, client, frozenset(scopes), (is_allowed, rule), is_settled)


class _Outcome(NamedTuple):
    verdict: str
    rule: str = ""
    depends_on: tuple[Rule, ...] = ()

    @property
    def is_allowed(self) -> bool:
        return self.verdict in ("allowed", "public")


class _Replayed:
    """A policy that decides about calls of a log."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._remembered = Memory[tuple[str, str, str, str, frozenset[str]], _Outcome](_REMEMBERED)

    def decide(self, decision: _Decision) -> _Outcome:
        key = (decision.method, decision.verb, decision.organization, decision.client, decision.scopes)
        outcome = self._remembered.get(key)
        if outcome is None:
            outcome = self._decide(decision)
            self._remembered.remember(key, outcome)
        return outcome

    def _decide(self, decision: _Decision) -> _Outcome:
        call = Call(method=decision.method, metadata=(), verb=decision.verb)
        if not decision.organization:
            return _Outcome("public" if call.method in self._policy.public else NO_TOKEN)
        principal = Principal(
            org_id=decision.organization, client_id=decision.client, subject=decision.client, scopes=decision.scopes
        )
        ruling = decide(self._policy, call, principal)
        if ruling.is_by_rules and (candidates := self._conditional(call, principal)):
            return _Outcome("conditional", depends_on=candidates)
        return _Outcome(ruling.verdict, ruling.rule)

    def _conditional(self, call: Call, principal: Principal) -> tuple[Rule, ...]:
        """Return the rules that may decide, if some of their conditions are about what the log lacks; else none."""
        candidates = self._policy.candidates(call, principal)
        return candidates if candidates and candidates[0].is_conditional else ()
