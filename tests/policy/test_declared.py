"""Who may call, as .proto files declare it, alone and together with a policy file."""

import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from authz.call.call import Call
from authz.call.principal import Principal
from authz.call.requirements import Assurance
from authz.demo.v1 import ledger_pb2
from authz.errors import ConfigError, InsufficientScopeError
from authz.policy import Policy
from authz.policy.explain.explanation import Ruling, decide
from authz.policy.protos.access import Access
from authz.policy.protos.declared import Protos
from authz.v1 import policy_pb2
from tests.marked import descriptor_set, service_file, with_imports
from tests.policy.test_properties import (
    CLIENTS,
    GROUPS,
    ORGANIZATIONS,
    SCOPES,
    built,
    documents,
    first_match,
    is_clear,
    several_calls,
    several_principals,
)

LEDGER = "authz.demo.v1.LedgerService"
LIST, POST, IMPORT = (f"/{LEDGER}/{name}" for name in ("ListEntries", "PostEntry", "ImportEntries"))
CALL, ELSEWHERE = "/tests.Api/Call", "/grpc.health.v1.Health/Check"
BY_PROTO = f"proto:{CALL}"
ORG, OTHER = "org_a", "org_b"

Build = Callable[..., Policy]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Return a function that builds the policy of a service with one method, ``Call``."""

    def build(access: Mapping[str, Any] | None, **file: Any) -> Policy:
        api, policy = tmp_path / "api.binpb", tmp_path / "policy.json"
        api.write_bytes(with_imports(service_file({"Call": access, "Silent": None})))
        policy.write_text(json.dumps({"name": "ledger", **file}, indent=1), encoding="utf-8")
        return Policy.from_descriptors(api, policy if file else None)

    return build


def who(scopes: str = "", org_id: str = ORG, client_id: str = "c1") -> Principal:
    return Principal(org_id=org_id, client_id=client_id, subject=client_id, scopes=frozenset(scopes.split()))


def ask(policy: Policy, caller: Principal, method: str = CALL, *headers: tuple[str, str]) -> Ruling:
    return decide(policy, Call(method=method, metadata=headers), caller)


def error_of(build: Build, access: Mapping[str, Any], **file: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        build(access, **file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rule(name: str, **parts: Any) -> dict[str, Any]:
    return {"name": name, **parts}


def introspect(seconds: int, if_unavailable: Any = policy_pb2.Introspect.IF_UNAVAILABLE_DENY) -> Any:
    return {"introspect": policy_pb2.Introspect(max_age=Duration(seconds=seconds), if_unavailable=if_unavailable)}


# ---- Alone ----


@pytest.mark.parametrize("source", ["services", "descriptors"])
def test_protos_alone_are_a_policy(tmp_path: Path, source: str) -> None:
    api = tmp_path / "api.binpb"
    api.write_bytes(descriptor_set(ledger_pb2.DESCRIPTOR))
    policy = Policy.from_services([LEDGER]) if source == "services" else Policy.from_descriptors(str(api))

    assert ask(policy, who("ledger:read"), LIST) == ("allowed", f"proto:{LIST}", "")
    assert ask(policy, who("ledger:read"), POST) == ("denied", f"proto:{POST}", "insufficient_scope")
    assert policy.assurance(IMPORT) == Assurance(max_age=5)
    assert policy.assurance(LIST) is None
    assert (policy.name, policy.has_assurances, len(policy.requirements)) == ("proto", True, 4)


ASKS = {"scopes": ["r w", "admin"], "groups": ["g", "h"], "organizations": [ORG, OTHER], "clients": ["c1"]}
KNOWN = {"organizations": {ORG: {"groups": ["g"]}, OTHER: {}, "org_c": {"groups": ["h"]}}}


@pytest.mark.parametrize(
    ("caller", "reason"),
    [
        pytest.param(who("r w"), "", id="everything"),
        pytest.param(who("admin x"), "", id="other-alternative"),
        pytest.param(who("r"), "insufficient_scope", id="half-of-the-scopes"),
        pytest.param(who("r w", OTHER), "policy_denied", id="group"),
        pytest.param(who("r w", "org_c"), "policy_denied", id="organization"),
        pytest.param(who("r w", client_id="c2"), "policy_denied", id="client"),
        pytest.param(who("r", client_id="c2"), "policy_denied", id="client-and-scopes"),
    ],
)
def test_everything_that_a_method_asks_for_is_needed(build: Build, caller: Principal, reason: str) -> None:
    ruling = ask(build(ASKS, **KNOWN), caller)

    assert ruling == ("denied" if reason else "allowed", BY_PROTO, reason)


def test_who_lacks_nothing_but_scopes_is_told_the_first_that_would_do(build: Build) -> None:
    with pytest.raises(InsufficientScopeError) as caught:
        ask_for_principal(build(ASKS, **KNOWN), who("x"))

    assert (caught.value.scopes, caught.value.rule) == ({"r", "w"}, BY_PROTO)


def ask_for_principal(policy: Policy, caller: Principal) -> None:
    policy.admit(Call(method=CALL, metadata=()), caller)


def test_an_option_that_asks_for_nothing_lets_every_good_token_in(build: Build) -> None:
    assert ask(build({}), who()) == ("allowed", BY_PROTO, "")


@pytest.mark.parametrize("method", ["/tests.Api/Silent", ELSEWHERE, "/orders", ""])
def test_what_no_proto_declares_is_shut_until_the_file_opens_it(build: Build, method: str) -> None:
    assert ask(build({}), who("r"), method) == ("denied", "", "policy_denied")
    if method:
        opened = build({}, allow_rules=[rule("open", request={"paths": [method, CALL]})])
        assert ask(opened, who(), method) == ("allowed", "open", "")
        assert ask(build({}, public=[method]), who(), method).verdict == "public"


def test_services_that_declare_nothing_are_an_error(build: Build) -> None:
    with pytest.raises(ConfigError, match=r"^descriptors: '.*api\.binpb': no method declares who may call it; give"):
        build(None)
    with pytest.raises(ConfigError, match=r"^services: no method declares"):
        Policy.from_services([])


# ---- With a file ----


def test_deny_rules_are_asked_first(build: Build) -> None:
    policy = build({"scopes": ["r"]}, deny_rules=[rule("stop", source={"clients": ["c1"]})])

    assert ask(policy, who("r")) == ("denied", "stop", "policy_denied")
    assert ask(policy, who("")) == ("denied", "stop", "policy_denied")
    assert ask(policy, who("r", client_id="c2")) == ("allowed", BY_PROTO, "")


def test_a_deny_rule_about_headers_is_asked_of_every_call(build: Build) -> None:
    slow = {"headers": [{"key": "x-mode", "values": ["slow"]}]}
    policy = build({"scopes": ["r"]}, deny_rules=[rule("no-slow", request=slow)])

    for _ in range(2):
        assert ask(policy, who("r"), CALL, ("x-mode", "slow")).rule == "no-slow"
        assert ask(policy, who("r"), CALL, ("x-mode", "fast")).verdict == "allowed"
        assert ask(policy, who("w"), CALL, ("x-mode", "fast")).rule == BY_PROTO


def test_allow_rules_narrow_and_do_not_widen(build: Build) -> None:
    policy = build({"scopes": ["r"]}, allow_rules=[rule("acme", source={"organizations": [ORG]})])

    assert ask(policy, who("r")) == ("allowed", "acme", "")
    assert ask(policy, who("r", OTHER)) == ("denied", "", "policy_denied")
    assert ask(policy, who("w")) == ("denied", BY_PROTO, "insufficient_scope")


def test_an_overriding_file_decides_by_its_allow_rules(build: Build) -> None:
    allow = [rule("acme", source={"organizations": [ORG]})]
    policy = build({"scopes": ["r"]}, allow_rules=allow, override=True)

    assert ask(policy, who("w")) == ("allowed", "acme", "")
    assert ask(policy, who("r", OTHER)) == ("denied", "", "policy_denied")


def test_an_overriding_file_without_allow_rules_leaves_what_is_declared(build: Build) -> None:
    policy = build({"scopes": ["r"]}, public=[CALL.replace("Call", "Silent")], override=True)

    assert [ask(policy, who(scope)).verdict for scope in "rw"] == ["allowed", "denied"]


def test_a_suspended_organization_is_refused_first(build: Build) -> None:
    policy = build({"scopes": ["r"]}, organizations={ORG: {"status": "suspended"}})

    assert ask(policy, who("w")) == ("suspended", "", "organization_suspended")


ACCESS = st.builds(
    lambda scopes, groups, organizations, clients: Access(
        scopes=tuple(frozenset(words.split()) for words in scopes),
        groups=frozenset(groups),
        organizations=frozenset(organizations),
        clients=frozenset(clients),
    ),
    *(st.lists(st.sampled_from(values), max_size=2) for values in (SCOPES, GROUPS, ORGANIZATIONS, CLIENTS)),
)
protos = st.dictionaries(st.sampled_from(["/a", "/a/b", "/b/b"]), ACCESS).map(lambda access: Protos(access, "api"))


def is_met(access: Access, caller: Principal, groups: list[str]) -> bool:
    return (
        (not access.scopes or any(scopes <= caller.scopes for scopes in access.scopes))
        and (not access.groups or bool(access.groups & set(groups)))
        and caller.org_id in (access.organizations or {caller.org_id})
        and caller.client_id in (access.clients or {caller.client_id})
    )


def beside_protos(document: dict[str, Any], absent: str, *, override: bool) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != absent} | {"override": override}


files = st.builds(beside_protos, documents, st.sampled_from(["allow_rules", "labels"]), override=st.booleans())


@given(files, protos, several_calls, several_principals)
def test_both_decide_as_a_reading_of_them_says(
    document: dict[str, Any], protos: Protos, asked: list[Call], callers: list[Principal]
) -> None:
    policy, has_allow_rules = built(document, protos), "allow_rules" in document

    # Twice: what is remembered of one call must not decide another.
    for call, caller in [*itertools.product(asked, callers)] * 2:
        groups = document["organizations"].get(caller.org_id, {"groups": []})["groups"]
        access = protos.access.get(call.method)
        section, name = first_match({"allow_rules": [], **document}, call, caller) or ("", "")
        expected = "allowed" if section == "allow_rules" else "denied", name
        if policy.verbs and not is_clear(call):
            expected = "denied", ""
        elif section != "deny_rules" and access is not None and not (document["override"] and has_allow_rules):
            if not is_met(access, caller, groups):
                expected = "denied", f"proto:{call.method}"
            elif not has_allow_rules:
                expected = "allowed", f"proto:{call.method}"
        assert decide(policy, call, caller)[:2] == expected


@given(documents, protos, several_calls, several_principals)
def test_a_file_allows_nothing_that_the_protos_refuse(
    document: dict[str, Any], protos: Protos, asked: list[Call], callers: list[Principal]
) -> None:
    both = built(document, protos)
    alone = built({"name": "alone", "organizations": document["organizations"]}, protos)

    for call, caller in itertools.product(asked, callers):
        if call.method in protos.access and decide(both, call, caller).verdict == "allowed":
            assert decide(alone, call, caller).verdict == "allowed"


# ---- Public methods ----


def test_public_methods_of_both_are_public(build: Build) -> None:
    assert build({"public": True}, public=[ELSEWHERE]).public == {CALL, ELSEWHERE}
    assert build({"public": True}, public=[CALL]).public == {CALL}
    assert build({"public": True}).public == {CALL}


def test_a_file_opens_no_method_that_its_proto_shuts(build: Build) -> None:
    said = error_of(build, {}, public=[ELSEWHERE, CALL])

    assert said.endswith(
        f"policy.json:5: '{CALL}' is not public in its .proto; say so there, or say override: true here"
    )
    assert build({}, public=[CALL], override=True).public == {CALL}


# ---- Introspection ----

LOCAL = policy_pb2.Introspect.IF_UNAVAILABLE_LOCAL


@pytest.mark.parametrize(
    ("declared", "given", "expected"),
    [
        pytest.param(introspect(5), {}, Assurance(max_age=5), id="nothing"),
        pytest.param(introspect(5), {"/other*": {}}, Assurance(max_age=5), id="another-method"),
        pytest.param(introspect(5), {CALL: {"max_age": 5}}, Assurance(max_age=5), id="the-same"),
        pytest.param(introspect(5, LOCAL), {"*": {"max_age": 1}}, Assurance(max_age=1), id="both-stricter"),
        pytest.param(
            introspect(5, LOCAL),
            {CALL: {"max_age": 4, "if_unavailable": "local"}},
            Assurance(max_age=4, if_unavailable="local"),
            id="younger",
        ),
        pytest.param({}, {CALL: {"max_age": 9}}, Assurance(max_age=9), id="where-none-is-declared"),
        pytest.param(introspect(5), {CALL: {"max_age": 4}, "*": {"max_age": 30}}, Assurance(max_age=4), id="closest"),
    ],
)
def test_a_file_may_want_more_assurance(build: Build, declared: Any, given: Any, expected: Assurance) -> None:
    policy = build(declared, introspect=given)

    assert policy.assurance(CALL) == expected
    assert policy.has_assurances


@pytest.mark.parametrize(
    ("declared", "given", "line", "wanted"),
    [
        pytest.param(introspect(5), {CALL: {"max_age": 6}}, 4, "max_age 5, if_unavailable deny", id="older"),
        pytest.param(introspect(0), {"/x": {}, "/tests*": {"max_age": 1}}, 5, "max_age 0, if_una", id="pattern"),
        pytest.param(introspect(5), {CALL: {"if_unavailable": "local"}}, 4, "max_age 5, if_unavai", id="local"),
    ],
)
def test_a_file_may_not_want_less(build: Build, declared: Any, given: Any, line: int, wanted: str) -> None:
    said = error_of(build, declared, introspect=given)

    assert f"policy.json:{line}: '{CALL}' would be less sure than its .proto wants: {wanted}" in said
    assert said.endswith("; ask for as much, or say override: true")
    [assurance] = [Assurance(**each) for pattern, each in given.items() if pattern != "/x"]
    assert build(declared, introspect=given, override=True).assurance(CALL) == assurance


# ---- What is an error ----


@pytest.mark.parametrize(
    ("access", "said"),
    [
        pytest.param({"groups": ["trail"]}, "unknown group 'trail'; did you mean 'trial'?", id="group"),
        pytest.param({"groups": ["zzz"]}, "unknown group 'zzz'; no organization is in it", id="group-of-nobody"),
        pytest.param({"organizations": ["org_z"]}, "unknown organization 'org_z'; did you", id="organization"),
    ],
)
def test_names_that_the_file_does_not_know_are_mistakes(build: Build, access: Any, said: str) -> None:
    error = error_of(build, access, organizations={ORG: {"groups": ["trial"]}})

    assert error.startswith("descriptors: ")
    assert f"api.binpb': {CALL}: {said}" in error


def test_names_are_not_compared_where_no_organizations_are_listed(build: Build) -> None:
    policy = build({"groups": ["trial"]}, deny_rules=[])

    assert ask(policy, who()) == ("denied", BY_PROTO, "policy_denied")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (
            {},
            "policy: 'allow_rules' is missing; it may be left out only with --descriptors that declare access",
        ),
        (
            {"override": False, "allow_rules": [rule("r")]},
            "policy: override: 'override' does nothing without .proto files that declare access; leave it out",
        ),
        (
            {"allow_rules": [rule("proto:/a/b")]},
            "policy: allow_rules[0].name: 'proto:/a/b' would look like a rule from a .proto; choose another name",
        ),
    ],
)
def test_what_makes_no_sense_without_protos_is_an_error(file: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Policy.from_document({"name": "p", **file})

    assert str(caught.value) == said
