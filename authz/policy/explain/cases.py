"""Table tests of a policy, written in a file beside it."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from authz.call.call import Call
from authz.call.peer import Peer
from authz.call.principal import Principal
from authz.policy.explain.explanation import Explanation, explain, list_of_rule, shown
from authz.policy.policy import Policy
from authz.policy.rules import Rule
from authz.policy.text.schema import VERB_NAME
from authz.runtime.text.document import Document, Fault, read
from authz.runtime.text.schema import compiled, did_you_mean, mapping, published, record, text, without_spaces

_CASE = record(
    "Test",
    "One call, and what the policy must decide about it.",
    {
        "name": text("Name of the test", "What it shows.", minLength=1, examples=["trials do not import"]),
        "method": text("Method", "What is called.", minLength=1, examples=["/ledger.v1.Ledger/List"]),
        "verb": {**VERB_NAME, "description": "In capitals; POST by default, as for gRPC."},
        "organization": text(
            "Organization", "Who calls; only a test of a public method may leave it out.", minLength=1
        ),
        "client": text("Client", "The caller's M2M application.", minLength=1),
        "scopes": {
            "type": "array",
            "title": "Scopes",
            "description": "Those of the caller's token, each for itself.",
            "items": text(
                "Scope",
                pattern=without_spaces(r"^[^\s]+$"),
                patternErrorMessage="not one scope",
                examples=["ledger:read"],
            ),
        },
        "headers": mapping(
            "Headers", "What the caller sends, by name.", text("Name of the header", minLength=1), text("Value")
        ),
        "principal": text("Principal", "The identity in the caller's certificate; empty for TLS without one."),
        "expect": text(
            "Expected verdict",
            "What must be decided.",
            enum=["allowed", "denied", "suspended", "public"],
            enumDescriptions=[
                "A rule allows it.",
                "A deny rule matches, or no rule allows it.",
                "The organization is suspended.",
                "The method is public; no rule is asked.",
            ],
        ),
        "rule": text("Deciding rule", "The name of the rule that must decide; empty if none must."),
    },
    *("name", "method", "expect"),
    **{"if": {"properties": {"expect": {"const": "public"}}}, "else": {"required": ["organization"]}},
)
SCHEMA = published(
    "policy-test",
    {
        "type": "array",
        "title": "Tests of a policy",
        "description": "Calls, and what the policy must decide about each.",
        "items": _CASE,
    },
)
_check = compiled(SCHEMA)


class Case(NamedTuple):
    """One call, and the expected verdict.

    Args:
        name: the test's name.
        call: the call.
        principal: who makes it.
        expect: the verdict.
        rule: the name of the rule that must decide, or ``""`` if none must; ``None`` if it does not matter.

    """

    name: str
    call: Call
    principal: Principal
    expect: str
    rule: str | None


class Outcome(NamedTuple):
    """The result of one test.

    Args:
        name: the test's.
        failure: where it stands, what was expected, and what decided instead; ``None`` if it passed.
        seconds: how long the policy took.

    """

    name: str
    failure: str | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The results of the tests.

    Args:
        outcomes: those of all tests, in order.
        unreached: the rules that decided in no test.

    """

    outcomes: tuple[Outcome, ...]
    unreached: tuple[Rule, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        """What is wrong, for each test that failed."""
        return tuple(each.failure for each in self.outcomes if each.failure is not None)

    @property
    def passed(self) -> int:
        """How many tests passed."""
        return sum(each.failure is None for each in self.outcomes)


class Cases:
    """The tests of one policy.

    Args:
        document: a list of tests.
        policy: what they test.

    Raises:
        ConfigError: a test is not valid; the message names file and line.

    """

    def __init__(self, document: Document, policy: Policy) -> None:
        self._document, self._policy = document, policy
        try:
            _check(document.data)
            for index, data in enumerate(document.data):
                _check_sense(data, index, policy)
        except Fault as fault:
            raise document.error(fault) from None
        self._cases: Sequence[Case] = tuple(map(_case, document.data))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], policy: Policy) -> "Cases":
        """Read the tests of ``policy``: JSON where the name ends in ``.json``, else YAML.

        Raises:
            ConfigError: the file cannot be read, or something in it is wrong; the message names file and line.

        """
        return cls(read(path), policy)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tests, in order."""
        return tuple(case.name for case in self._cases)

    def run(self) -> Results:
        """Ask the policy about every call."""
        outcomes, reached = [], set()
        for index, case in enumerate(self._cases):
            begun = time.perf_counter()
            explanation = self._explained(case)
            outcomes.append(Outcome(case.name, self._failure(index, explanation), time.perf_counter() - begun))
            reached.add((explanation.ruling.list, explanation.ruling.rule))
        rules = self._policy.rules
        unreached = tuple(rule for rule in rules if (list_of_rule(rule), rule.name) not in reached)
        return Results(outcomes=tuple(outcomes), unreached=unreached)

    def failure(self, index: int) -> str | None:
        """Ask the policy about one call, and return what is wrong, in one line, or ``None``.

        Args:
            index: that of the test in :attr:`names`.

        """
        return self._failure(index, self._explained(self._cases[index]))

    def _explained(self, case: Case) -> Explanation:
        return explain(self._policy, case.call, case.principal)

    def _failure(self, index: int, explanation: Explanation) -> str | None:
        case = self._cases[index]
        verdict, rule, _ = explanation.ruling
        if verdict == case.expect and case.rule in (None, rule):
            return None
        expected = case.expect + _by(case.rule)
        actual = verdict + _by(rule if case.rule is not None else None)
        said = f"{shown(case.name)}: expected {expected}, is {actual}: {explanation.decisive}"
        return str(self._document.error(Fault(said, index)))


def file_beside(policy: Path) -> Path:
    """Return where the tests of a policy file are: ``policy.test.yaml`` for ``policy.yaml``."""
    return policy.with_suffix(f".test{policy.suffix}")


def _by(rule: str | None) -> str:
    return "" if rule is None else f" by {shown(rule)}" if rule else " by no rule"


def _check_sense(data: dict[str, Any], index: int, policy: Policy) -> None:
    if "organization" not in data and data["expect"] != "public":
        raise Fault("'organization' is missing; only a test of a public method may leave it out", index)
    names = {rule.name for rule in (*policy.rules, *policy.requirements.values())}
    if data.get("rule") and data["rule"] not in names:
        raise Fault(f"unknown rule {data['rule']!a}{did_you_mean(data['rule'], names)}", index, "rule")


def _case(data: dict[str, Any]) -> Case:
    client = data.get("client", "")
    return Case(
        name=data["name"],
        call=Call(
            method=data["method"],
            verb=data.get("verb", "POST"),
            metadata=tuple(data.get("headers", {}).items()),
            peer=Peer(principals=(data["principal"],)) if "principal" in data else None,
        ),
        principal=Principal(
            org_id=data.get("organization", ""),
            client_id=client,
            subject=client,
            scopes=frozenset(data.get("scopes", ())),
        ),
        expect=data["expect"],
        rule=data.get("rule"),
    )
