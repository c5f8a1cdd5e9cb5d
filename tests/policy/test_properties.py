"""The compiled engine says what a reading of the document, rule by rule, says."""

import itertools
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.call.call import Call
from authz.call.peer import Peer
from authz.call.principal import Principal
from authz.errors import ConfigError, PermissionDeniedError
from authz.policy import Policy
from authz.policy.protos.declared import Protos
from authz.runtime.text.document import Document
from tests.policy.rulings import ruling_of

# Few and alike, so that most of them meet.
TEXTS = ["", "/", "/a", "/a/", "/a/b", "/b/b", "/ab", "a", "b"]
PATTERNS = ["", "*", "/a*", "/a/*", "*b", "*/b", "/a/b", "/b/b", "/a", "a", "**"]
ORGANIZATIONS, GROUPS, CLIENTS = ["org_a", "org_b", "org_c"], ["g", "h"], ["c1", "c2"]
SCOPES = ["r", "w", "r w"]
VERBS = ["GET", "HEAD", "POST", "X-Y"]

texts, patterns = st.sampled_from(TEXTS), st.lists(st.sampled_from(PATTERNS), max_size=3, unique=True)


def some(values: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True)


headers = st.fixed_dictionaries(
    {
        "key": st.sampled_from(["x", "Y"]),
        "values": st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=2, unique=True),
    }
)
CONDITIONS = {
    "principals": patterns,
    "organizations": some(ORGANIZATIONS),
    "groups": some(GROUPS),
    "clients": some(CLIENTS),
    "scopes": some(SCOPES),
    "paths": patterns,
    "methods": some(VERBS),
    "headers": st.lists(headers, max_size=2),
}


@st.composite
def rule(draw: st.DrawFn) -> dict[str, Any]:
    """Return a rule that asks for little, so that it often matches."""
    parts: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(sorted(CONDITIONS)), max_size=2, unique=True)):
        part = "request" if name in ("paths", "methods", "headers") else "source"
        parts.setdefault(part, {})[name] = draw(CONDITIONS[name])
    return parts


rules = rule()
organizations = st.fixed_dictionaries(
    {name: st.fixed_dictionaries({"groups": st.lists(st.sampled_from(GROUPS), unique=True)}) for name in ORGANIZATIONS}
    # A group is known by its members.
    | {"org_all": st.just({"groups": GROUPS})}
)
calls = st.builds(
    lambda method, metadata, names, verb: Call(
        method=method, metadata=metadata, peer=Peer(principals=tuple(names)), verb=verb
    ),
    texts,
    st.lists(st.tuples(st.sampled_from(["x", "y", "X", "z", "x", "y", "X_HTTP-Method"]), texts), max_size=3),
    st.lists(texts, max_size=2),
    st.sampled_from([*VERBS, *VERBS, "PUT", "PATCH", "get", "", "G" * 33]),
)
principals = st.builds(
    lambda org_id, client_id, scopes: Principal(
        org_id=org_id, client_id=client_id, subject=client_id, scopes=frozenset(scopes)
    ),
    st.sampled_from([*ORGANIZATIONS, "org_stranger"]),
    st.sampled_from([*CLIENTS, "c3"]),
    st.lists(st.sampled_from(["r", "w", "x"])),
)


def is_like(pattern: str, text: str) -> bool:
    if pattern == "*":
        return text != ""
    if pattern[-1:] == "*":
        return text[: len(pattern) - 1] == pattern[:-1]
    if pattern[:1] == "*":
        return text[max(0, len(text) - len(pattern) + 1) :] == pattern[1:]
    return text == pattern


def is_one_of(patterns: list[str], texts: list[str]) -> bool:
    return any(is_like(pattern, text) for pattern in patterns for text in texts)


def matches(rule: dict[str, Any], call: Call, who: Principal, groups: list[str]) -> bool:
    source, request = rule.get("source", {}), rule.get("request", {})
    asked = [
        "methods" not in request or call.verb in request["methods"],
        not request.get("paths") or is_one_of(request["paths"], [call.method]),
        not source.get("principals") or is_one_of(source["principals"], list(call.peer.principals)),
        "organizations" not in source or who.org_id in source["organizations"],
        "groups" not in source or any(group in source["groups"] for group in groups),
        "clients" not in source or who.client_id in source["clients"],
        "scopes" not in source or any(all(word in who.scopes for word in item.split()) for item in source["scopes"]),
    ]
    for header in request.get("headers", []):
        sent = [value for key, value in call.metadata if key.lower() == header["key"].lower()]
        asked.append(bool(sent) and is_one_of(header["values"], [",".join(sent)]))
    return all(asked)


def is_clear(call: Call) -> bool:
    """Say whether every server takes the same HTTP method for that of a call."""
    override = any(name.lower().replace("_", "-") == "x-http-method" for name, _ in call.metadata)
    return call.verb in [*VERBS, "PUT", "PATCH"] and not override


def names_verbs(document: dict[str, Any], policy: Policy) -> bool:
    """Say whether a rule names HTTP methods, of those that do not turn out to be pointless."""
    names = {rule.name for rule in policy.rules}
    rules = [*document["deny_rules"], *document["allow_rules"]]
    return any("methods" in rule.get("request", {}) for rule in rules if rule["name"] in names)


def first_match(document: dict[str, Any], call: Call, who: Principal) -> tuple[str, str] | None:
    groups = document["organizations"].get(who.org_id, {"groups": []})["groups"]
    for section in ("deny_rules", "allow_rules"):
        for rule in document[section]:
            if matches(rule, call, who, groups):
                return section, rule["name"]
    return None


def built(document: dict[str, Any], protos: Protos | None = None) -> Policy:
    """Return the policy without the rules that it calls pointless."""
    while True:
        try:
            return Policy(Document(document), protos)
        except ConfigError as error:
            pointless = re.match(r"policy: (\w+)\[(\d+)\]: rule '\w+' never decides", str(error))
            assert pointless is not None
            document = {**document, pointless[1]: without(document[pointless[1]], int(pointless[2]))}


def without(rules: list[Any], number: int) -> list[Any]:
    return rules[:number] + rules[number + 1 :]


documents = st.builds(
    lambda deny, allow, organizations: {
        "name": "p",
        "deny_rules": [{"name": f"d{number}", **rule} for number, rule in enumerate(deny)],
        "allow_rules": [{"name": f"a{number}", **rule} for number, rule in enumerate(allow)],
        "organizations": organizations,
    },
    st.lists(rules, max_size=4),
    st.lists(rules, min_size=1, max_size=6),
    organizations,
)


several_calls, several_principals = (st.lists(each, min_size=1, max_size=6) for each in (calls, principals))


@pytest.mark.long
@settings(max_examples=200)
@given(documents, several_calls, several_principals)
def test_the_first_rule_that_matches_decides(
    document: dict[str, Any], asked: list[Call], callers: list[Principal]
) -> None:
    """Also if rules that decide nothing are removed."""
    policy = built(document)

    # Twice: what is remembered of one call must not decide another.
    for call, who in [*itertools.product(asked, callers)] * 2:
        is_asked = is_clear(call) or not names_verbs(document, policy)
        assert ruling_of(policy, call, who) == (first_match(document, call, who) if is_asked else None)


@given(documents, several_calls, several_principals)
def test_only_an_allow_rule_admits(document: dict[str, Any], asked: list[Call], callers: list[Principal]) -> None:
    policy = built(document)

    for call, who in itertools.product(asked, callers):
        is_asked = is_clear(call) or not names_verbs(document, policy)
        expected = first_match(document, call, who) if is_asked else None
        if expected is not None and expected[0] == "allow_rules":
            rule = policy.admit(call, who)
        else:
            with pytest.raises(PermissionDeniedError) as caught:
                policy.admit(call, who)
            rule = caught.value.rule
        assert rule == ("" if expected is None else expected[1])
