"""An explanation says what the policy decides, and why."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.call.call import Call
from authz.call.peer import Peer
from authz.call.principal import ANONYMOUS, Principal
from authz.errors import PeerUnknownError, PermissionDeniedError
from authz.policy import Policy
from authz.policy.explain.explanation import Explanation, explain
from tests.policy.test_properties import (
    built,
    calls,
    documents,
    is_clear,
    matches,
    several_calls,
    several_principals,
)

DOCUMENT: dict[str, Any] = {
    "name": "ledger",
    "deny_rules": [{"name": "no-imports", "source": {"groups": ["trial"]}, "request": {"paths": ["*/Import", "/x*"]}}],
    "allow_rules": [
        {
            "name": "ledger",
            "source": {
                "organizations": ["org_b", "org_a"],
                "clients": ["c1", "c2"],
                "scopes": ["ledger:read ledger:write", "admin"],
                "principals": ["spiffe://a/*"],
            },
            "request": {
                "paths": ["/ledger.Ledger/*"],
                "headers": [{"key": "X-Tier", "values": ["gold"]}, {"key": "x-region", "values": ["*"]}],
            },
        },
        {"name": "reports", "source": {"groups": ["paying"]}, "request": {"paths": ["/reports.Reports/Get"]}},
    ],
    "public": ["/health"],
    "organizations": {
        "org_a": {"tenant": "t-1", "groups": ["paying"]},
        "org_b": {"groups": ["trial"]},
        "org_c": {"status": "suspended"},
    },
}
POLICY = Policy.from_document(DOCUMENT)
TLS = Peer(principals=("spiffe://a/b",))


def ask(method: str, org_id: str, *metadata: tuple[str, str], peer: Peer | None = TLS, **who: Any) -> Explanation:
    principal = Principal(
        **{"org_id": org_id, "client_id": "c1", "subject": "c1", "scopes": frozenset(["admin"]), **who}
    )
    return explain(POLICY, Call(method=method, metadata=metadata, peer=peer), principal)


def failures(explanation: Explanation) -> dict[str, list[str]]:
    return {rule.name: list(rule.failed) for rule in explanation.rules}


def test_everything_that_failed_is_said() -> None:
    explanation = ask(
        "/other", "org_x", ("x-tier", "tin"), peer=Peer(), client_id="c9", scopes=frozenset(["ledger:read"])
    )

    assert (explanation.ruling.verdict, explanation.ruling.reason) == ("denied", "policy_denied")
    assert failures(explanation) == {
        "no-imports": [
            "source.groups: org_x is in none, not in trial",
            "request.paths: /other does not match */Import, /x*",
        ],
        "ledger": [
            "source.organizations: org_x is not among org_a, org_b",
            "source.clients: c9 is not among c1, c2",
            "source.scopes: holds ledger:read, needs ledger:read and ledger:write or admin",
            "source.principals: none does not match spiffe://a/*",
            "request.paths: /other does not match /ledger.Ledger/*",
            "request.headers x-tier: the value sent does not match gold",
        ],
        "reports": [
            "source.groups: org_x is in none, not in paying",
            "request.paths: /other does not match /reports.Reports/Get",
        ],
    }


def test_what_is_known_of_the_organization_is_said() -> None:
    explanation = ask("/reports.Reports/Get", "org_a")

    assert (explanation.is_listed, explanation.tenant, explanation.groups) == (True, "t-1", ("paying",))
    assert not ask("/reports.Reports/Get", "org_x").is_listed


@pytest.mark.parametrize(
    ("method", "org_id", "verdict", "decisive"),
    [
        ("/health", "", "public", "the method is public; no rule is asked"),
        ("/a", "org_c", "suspended", "the organization is suspended; no rule is asked"),
        ("/a/Import", "org_b", "denied", "rule no-imports of deny_rules matches"),
        ("/reports.Reports/Get", "org_a", "allowed", "rule reports of allow_rules matches"),
        (
            "/reports.Reports/Get",
            "org_b",
            "denied",
            "no rule allows it; the nearest, reports: source.groups: org_b is in trial, not in paying",
        ),
    ],
)
def test_one_line_says_what_decided(method: str, org_id: str, verdict: str, decisive: str) -> None:
    explanation = ask(method, org_id)

    assert (explanation.ruling.verdict, explanation.decisive) == (verdict, decisive)


def test_a_certificate_that_is_not_known_decides_nothing() -> None:
    headers = ("x-tier", "gold"), ("x-region", "eu")

    explanation = ask("/ledger.Ledger/List", "org_a", *headers, peer=None)

    assert [rule.matches for rule in explanation.rules] == [False, None, False]
    unknown = "source.principals: the caller's certificate is not known"
    assert (explanation.ruling.verdict, explanation.decisive) == ("undecided", f"rule ledger of allow_rules: {unknown}")
    assert ask("/ledger.Ledger/List", "org_a", *headers).ruling.rule == "ledger"


VERBS = Policy.from_document(
    {
        "name": "orders",
        "deny_rules": [{"name": "no-deletes", "request": {"methods": ["DELETE"]}}],
        "allow_rules": [{"name": "reads", "request": {"paths": ["/orders"], "methods": ["GET", "QUERY"]}}],
    }
)


@pytest.mark.parametrize(
    ("verb", "failed"),
    [
        ("GET", []),
        ("POST", ["request.methods: POST is not one of GET, QUERY"]),
        ("HEAD", ["request.methods: HEAD is not one of GET, QUERY; GET does not include it"]),
        ("OPTIONS", ["request.methods: OPTIONS is not one of GET, QUERY"]),
    ],
)
def test_http_method_that_fails_is_said(verb: str, failed: list[str]) -> None:
    explanation = explain(VERBS, Call(method="/orders", metadata=(), verb=verb), ANONYMOUS)

    assert failures(explanation)["reads"] == failed
    assert (explanation.verb, explanation.ruling.rule) == (verb, "" if failed else "reads")
    nearest = "; ".join(["no rule allows it", f"the nearest, reads: {failed[0]}"]) if failed else ""
    assert explanation.decisive == (nearest or "rule reads of allow_rules matches")


@pytest.mark.parametrize(
    ("verb", "header", "why"),
    [
        ("get", "accept", "get is not one in capitals"),
        ("", "accept", "'' is not one in capitals"),
        ("GET", "X-HTTP-Method", "a header may replace it"),
    ],
)
def test_http_method_about_which_servers_may_not_agree_is_said(verb: str, header: str, why: str) -> None:
    explanation = explain(VERBS, Call(method="/orders", metadata=((header, "x"),), verb=verb), ANONYMOUS)

    assert explanation.ruling == ("denied", "", "request_malformed")
    assert not explanation.ruling.is_by_rules
    assert explanation.decisive == f"servers may not agree about the HTTP method: {why}; no rule is asked"


def test_values_of_headers_are_not_repeated() -> None:
    assert "secret" not in repr(ask("/ledger.Ledger/List", "org_a", ("x-tier", "secret")))


def test_a_name_cannot_write_on_the_terminal() -> None:
    assert "\x1b" not in ask("/\x1b[2J", "org_a").decisive


@given(documents, several_calls, several_principals, st.data())
def test_it_says_what_the_policy_decides(
    document: dict[str, Any], asked: list[Call], callers: list[Principal], data: st.DataObject
) -> None:
    """It also says about each rule what the document says."""
    policy = built(document)
    known = [data.draw(st.sampled_from([call, call._replace(peer=None)])) for call in asked]

    for call, who in itertools.product(known, callers):
        explanation = explain(policy, call, who)
        try:
            verdict, decisive = "allowed", policy.admit(call, who)
        except PeerUnknownError:
            verdict, decisive = "undecided", ""
        except PermissionDeniedError as error:
            verdict, decisive = "denied", error.rule
        assert (explanation.ruling.verdict, explanation.ruling.rule) == (verdict, decisive)
        first = next((rule for rule in explanation.rules if rule.matches is not False), None)
        if explanation.ruling.reason == "request_malformed":
            assert not is_clear(call)
            assert (verdict, decisive) == ("denied", "")
        elif first is None:
            assert (verdict, decisive) == ("denied", "")
        elif first.matches is None:
            assert verdict == "undecided"
        else:
            assert (first.name, first.list) == (explanation.ruling.rule, explanation.ruling.list)
        assert explanation.decisive


@given(documents, calls, several_principals)
def test_each_rule_matches_as_it_reads(document: dict[str, Any], call: Call, callers: list[Principal]) -> None:
    policy = built(document)
    rules = {(key, rule["name"]): rule for key in ("deny_rules", "allow_rules") for rule in document[key]}

    for who in callers:
        groups = document["organizations"].get(who.org_id, {"groups": []})["groups"]
        for rule in explain(policy, call, who).rules:
            assert rule.matches == matches(rules[rule.list, rule.name], call, who, groups)
            assert rule.matches == (not rule.failed)
