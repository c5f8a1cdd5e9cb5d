"""Many rules: which one decides is what a reading in order says, and no call is compared with many of them."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.call.call import Call
from authz.call.principal import Principal
from authz.errors import ConfigError, PermissionDeniedError
from authz.organizations.organization import Organization
from authz.policy import Policy, Rule
from authz.policy.ends import Ends, ascending
from authz.policy.index import MOST, Index
from authz.policy.rules import Shared, headers_of, rule_from

ORGANIZATION = Organization(groups=frozenset({"g1", "g2"}))
TEXTS = ["", "a", "b", "ab", "aba", "ba", "abab", "b/a"]


def some(choose: random.Random, kind: str, count: int) -> list[str]:
    return [f"{kind}{number}" for number in choose.sample(range(count), choose.randint(1, 2))]


def paths(choose: random.Random) -> list[str]:
    path = "/" + "".join(choose.choices("ab/", k=choose.randint(1, 4)))
    return [choose.choice([path, path, f"{path}*", f"*{path}", "*"])]


def headers(choose: random.Random) -> list[dict[str, Any]]:
    value = choose.choice(["v1", "v2", "v3", "v*", "*1", "*"])
    return [{"key": f"x-{choose.randrange(2)}", "values": [value]}]


def many_rules(choose: random.Random, count: int) -> tuple[Rule, ...]:
    """Return rules of which many share their words, so that these are divided several times."""
    shared, rules = Shared(), []
    for number in range(count):
        source = {f"{kind}s": some(choose, kind[0], 5) for kind in ("organization", "group", "client")}
        source["scopes"] = [" ".join(some(choose, "s", 6)) for _ in range(choose.randint(1, 2))]
        request = {"paths": paths(choose), "methods": [choose.choice(["GET", "POST"])], "headers": headers(choose)}
        source = {key: source[key] for key in choose.sample(sorted(source), choose.randint(0, 3))}
        request = {key: request[key] for key in choose.sample(sorted(request), choose.randint(0, 2))}
        data = {"name": f"r{number}", "source": source, "request": request}
        rules.append(rule_from(data, shared, is_deny=False))
    return tuple(rules)


def any_call(choose: random.Random) -> Call:
    path = "/" + "".join(choose.choices("ab/", k=choose.randint(0, 5)))
    metadata = tuple((f"x-{choose.randrange(3)}", f"v{choose.randrange(4)}") for _ in range(choose.randrange(3)))
    return Call(method=path, metadata=metadata, verb=choose.choice(["GET", "POST", "PUT"]))


def any_caller(choose: random.Random) -> Principal:
    return Principal(
        org_id=f"o{choose.randrange(6)}",
        client_id=f"c{choose.randrange(6)}",
        subject="",
        scopes=frozenset(f"s{number}" for number in range(6) if choose.random() < 0.4),
    )


@settings(max_examples=15)
@given(st.randoms(use_true_random=False), st.integers(1, 200))
def test_among_many_rules_those_are_found_that_match_one_by_one(choose: random.Random, count: int) -> None:
    index = Index(many_rules(choose, count))

    for _ in range(20):
        call, who, groups = any_call(choose), any_caller(choose), frozenset(some(choose, "g", 6))
        sent = headers_of(call)
        expected = [rule for rule in index.rules if rule.concerns(call.method, call.verb, who, groups)]
        assert [*index.find(call.method, call.verb, who, groups)] == expected
        found = [
            rule for rule in index.find(call.method, call.verb, who, groups, sent) if rule.matches_rest(call, sent)
        ]
        assert found == [rule for rule in expected if rule.matches_rest(call, sent)]
        if not index.asks_headers(call.method):
            assert [*index.find(call.method, call.verb, who, groups, {})] == expected


@pytest.mark.parametrize("scope", ["a7", "b7"])
def test_among_many_rules_one_is_found_by_each_scope_that_would_do(scope: str) -> None:
    rules = [
        rule_from({"name": f"r{n}", "source": {"scopes": [f"a{n}", f"b{n}"]}}, Shared(), is_deny=False)
        for n in range(100)
    ]
    who = Principal(org_id="o1", client_id="c1", subject="", scopes=frozenset({scope}))

    assert [rule.name for rule in Index(rules).find("/a", "GET", who, frozenset())] == ["r7"]


@settings(max_examples=10)
@given(st.randoms(use_true_random=False), st.integers(1, 120))
def test_among_many_rules_the_first_that_covers_another_is_found(choose: random.Random, count: int) -> None:
    index = Index(many_rules(choose, count))

    for number, rule in enumerate(index.rules):
        earlier = (other for other in index.rules[:number] if other.covers(rule))
        assert index.covering(rule, number) is next(earlier, None)


@given(st.lists(st.sampled_from(TEXTS)), st.sampled_from(TEXTS))
def test_a_text_is_found_by_each_text_that_begins_with_it(texts: list[str], text: str) -> None:
    expected = sorted({each for each in texts if text.startswith(each)}, key=len, reverse=True)

    assert [*Ends(texts).of(text)] == expected


def test_texts_are_put_in_order_in_pieces() -> None:
    texts = [f"{number * 7919 % 5000}" for number in range(5000)]

    assert [*ascending(texts)] == sorted(texts)


def policy_of(rules: list[dict[str, Any]], **more: Any) -> Policy:
    return Policy.from_document(
        {"name": "p", "allow_rules": [{"name": f"r{n}", **each} for n, each in enumerate(rules)]} | more
    )


def by_header(value: str, key: str = "x-tenant") -> dict[str, Any]:
    return {"request": {"paths": ["/a"], "headers": [{"key": key, "values": [value]}]}}


def admitted(policy: Policy, *metadata: tuple[str, str], method: str = "/a", who: str = "c1") -> str:
    """Return the rule that allows a call; empty if none does."""
    principal = Principal(org_id="o1", client_id=who, subject="")
    try:
        return policy.admit(Call(method=method, metadata=metadata), principal, ORGANIZATION)
    except PermissionDeniedError:
        return ""


def test_of_many_rules_by_whole_values_of_a_header_each_decides_its_own() -> None:
    policy = policy_of([by_header(f"t{number}") for number in range(5_000)])

    assert [admitted(policy, ("x-tenant", value)) for value in ("t0", "t4999", "t5000")] == ["r0", "r4999", ""]
    assert admitted(policy) == ""


def test_a_verdict_by_a_header_is_not_remembered_for_other_calls() -> None:
    """Also if a later rule without conditions is what all others would be allowed by."""
    rules = [by_header(f"t{number}") for number in range(100)]
    principal = Principal(org_id="o1", client_id="c1", subject="")
    denying = [{"name": f"d{number}", **rule} for number, rule in enumerate(rules)]
    policy = policy_of([{}], deny_rules=denying)

    assert policy.admit(Call(method="/a", metadata=()), principal, ORGANIZATION) == "r0"
    assert not policy.decides_alike(Call(method="/a", metadata=()), principal, ORGANIZATION)
    with pytest.raises(PermissionDeniedError) as caught:
        policy.admit(Call(method="/a", metadata=(("X-Tenant", "t7"),)), principal, ORGANIZATION)
    assert caught.value.rule == "d7"


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param([by_header(f"t{number}-*") for number in range(MOST)], id="header prefixes"),
        pytest.param([by_header(f"*-t{number}") for number in range(MOST)], id="header suffixes"),
        pytest.param([{"request": {"paths": [f"/{'a' * (MOST + 1 - n)}*"]}} for n in range(MOST + 1)], id="nested"),
        pytest.param([{"source": {"principals": [f"spiffe://{n}/*" for n in range(8 * MOST)]}}], id="certificates"),
    ],
)
def test_too_many_rules_that_are_alike_are_an_error_that_names_one(rules: list[dict[str, Any]]) -> None:
    with pytest.raises(
        ConfigError, match=r"^policy: allow_rules\[\d+\]: rule 'r\d+' is one of too many that are alike"
    ):
        policy_of(rules)


def test_rules_that_differ_by_what_is_looked_up_are_not_too_many() -> None:
    by = ("organizations", "clients", "scopes", "groups")
    rules = [
        {"source": {kind: [f"{kind}{number}"]}, "request": {"paths": ["/a"]}}
        for number in range(2 * MOST)
        for kind in by
    ]
    policy = policy_of(rules, groups=[f"groups{number}" for number in range(2 * MOST)])

    assert admitted(policy, who="clients1999") == f"r{4 * 1999 + 1}"


def test_a_policy_that_is_freed_decides_on_for_who_uses_it() -> None:
    policy = policy_of([by_header(f"t{number}") for number in range(100)])
    freed = sum(1 for _ in policy.let_go())

    assert freed >= len(policy.rules)
    assert admitted(policy, ("x-tenant", "t99")) == "r99"
