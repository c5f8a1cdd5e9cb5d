"""A replay says what would change, and what it cannot know."""

import json
from typing import Any

from authz.call.call import Call
from authz.call.principal import Principal
from authz.policy import Policy
from authz.policy.explain.replay import Change, Replay

LEDGER = {"name": "ledger", "request": {"paths": ["/ledger/*"]}}
GOLD = {"name": "gold", "request": {"paths": ["/gold"], "headers": [{"key": "x-tier", "values": ["gold"]}]}}
OLD: dict[str, Any] = {
    "name": "p",
    "allow_rules": [LEDGER, GOLD],
    "public": ["/health"],
    "organizations": {"org_a": {}, "org_b": {}},
}


def line(method: str, organization: str = "org_a", **changes: Any) -> bytes:
    allowed = {"event": "decision", "verdict": "allowed", "reason": "", "client": "c", "scopes": [], "rule": "ledger"}
    return json.dumps({**allowed, "method": method, "organization": organization, **changes}).encode()


def replayed(*lines: bytes, **changes: Any) -> Replay:
    replay = Replay(Policy.from_document(OLD), Policy.from_document({**OLD, **changes}))
    replay.feed(lines)
    return replay


def test_the_same_policy_changes_nothing() -> None:
    replay = replayed(line("/ledger/Read"), line("/other", verdict="denied", reason="policy_denied", rule=""))

    assert (replay.changes, replay.replayed, replay.surprising) == ({}, 2, 0)


def test_changes_are_counted_by_method_and_caller() -> None:
    lines = [line("/ledger/Read"), line("/ledger/Read", client="other"), line("/ledger/Read", "org_b")]

    replay = replayed(*lines, deny_rules=[{"name": "no-b", "source": {"organizations": ["org_b"]}}])

    assert replay.changes == {Change("/ledger/Read", "org_b", ("allowed", "ledger"), ("denied", "no-b")): 1}
    scoped = {**LEDGER, "source": {"scopes": ["r"]}}
    replay = replayed(*lines, line("/ledger/Read", scopes=["r"]), allow_rules=[scoped, GOLD])
    assert replay.changes == {
        Change("/ledger/Read", "org_a", ("allowed", "ledger"), ("denied", "")): 2,
        Change("/ledger/Read", "org_b", ("allowed", "ledger"), ("denied", "")): 1,
    }


def test_a_suspension_is_a_change() -> None:
    replay = replayed(line("/ledger/Read"), organizations={"org_a": {"status": "suspended"}, "org_b": {}})

    assert list(replay.changes) == [Change("/ledger/Read", "org_a", ("allowed", "ledger"), ("suspended", ""))]


def test_without_a_token_only_what_is_public_can_change() -> None:
    opened = line("/ledger/Read", "", verdict="denied", reason="token_missing", rule="")
    closed = line("/health", "", rule="")
    refused = line("/other", "", verdict="denied", reason="token_missing", rule="")

    replay = replayed(opened, closed, refused, public=["/ledger/Read"])

    assert replay.changes == {
        Change("/ledger/Read", "", ("token needed", ""), ("public", "")): 1,
        Change("/health", "", ("public", ""), ("token needed", "")): 1,
    }
    assert (replay.replayed, replay.anonymous, replay.surprising) == (2, 1, 0)


def test_what_depends_on_headers_is_not_guessed() -> None:
    stricter = {**GOLD, "request": {**GOLD["request"], "headers": [{"key": "x-tier", "values": ["platinum"]}]}}

    assert replayed(line("/gold"), allow_rules=[LEDGER, stricter]).conditional == 1
    # The same rules decide alike, whatever they decide.
    assert replayed(line("/gold")).replayed == 1


ORDERS = [LEDGER, {"name": "orders", "request": {"paths": ["/orders"]}}]
READS = [LEDGER, {"name": "orders", "request": {"paths": ["/orders"], "methods": ["GET"]}}]


def test_http_method_of_a_decision_counts() -> None:
    """Also where the same caller used the same path by another one before."""
    lines = [line("/orders", verb=verb, rule="orders") for verb in ("GET", "DELETE", "GET", "DELETE", "HEAD")]

    replay = Replay(*(Policy.from_document({**OLD, "allow_rules": rules}) for rules in (ORDERS, READS)))
    replay.feed(lines)

    changed = ("/orders", "org_a", ("allowed", "orders"), ("denied", ""))
    assert replay.changes == {Change(*changed, "DELETE"): 2, Change(*changed, "HEAD"): 1}
    assert (replay.replayed, replay.surprising) == (5, 0)


def test_log_without_http_methods_is_one_of_posts() -> None:
    replay = Replay(*(Policy.from_document({**OLD, "allow_rules": rules}) for rules in (ORDERS, READS)))
    replay.feed([line("/orders", rule="orders"), line("/orders", rule="orders", verb=7)])

    assert replay.changes == {Change("/orders", "org_a", ("allowed", "orders"), ("denied", "")): 1}
    assert (next(iter(replay.changes)).verb, replay.unreadable) == ("POST", 1)


def test_http_method_that_no_rule_may_name_would_be_refused() -> None:
    """Whatever else the rules depend on."""
    sometimes = {**GOLD, "request": {**GOLD["request"], "paths": ["/orders"]}}
    replay = Replay(
        *(Policy.from_document({**OLD, "allow_rules": rules}) for rules in (ORDERS, [sometimes, *READS])),
    )
    replay.feed([line("/orders", verb=verb, rule="orders") for verb in ("get", "", "A" * 33)])

    assert {(change.verb, change.new) for change in replay.changes} == {
        (verb, ("denied", "")) for verb in ("get", "", "A" * 33)
    }


def test_who_was_refused_for_something_else_still_is() -> None:
    revoked = line("/ledger/Read", verdict="denied", reason="token_inactive")

    replay = replayed(revoked, deny_rules=[{"name": "all"}])

    assert (replay.changes, replay.refused) == ({}, 1)


def test_scopes_that_a_proto_asked_for_are_the_policys() -> None:
    """Scopes that a route requires are not."""
    of_proto = line("/ledger/Read", verdict="denied", reason="insufficient_scope", rule="proto:/ledger/Read")
    of_route = line("/ledger/Read", verdict="denied", reason="insufficient_scope", rule="")

    replay = replayed(of_proto, of_route)

    assert (replay.replayed, replay.refused) == (1, 1)


def test_lines_that_are_no_decisions_are_counted() -> None:
    lines = [b"", b"{", b"[]", b"{}", b"\xff", line("/ledger/Read", scopes="r"), line("/ledger/Read", client=7)]

    replay = replayed(*lines, line("/ledger/Read", event="stream_ended", verdict="denied"), line("/ledger/Read"))

    assert (replay.unreadable, replay.readable) == (7, 1)


def test_line_that_was_cut_short_is_counted_and_the_empty_one_after_it_is_nothing() -> None:
    replay = replayed(line("/ledger/Read") + b"\n", line("/ledger/Read")[:40] + b"\n", b"\n", line("/ledger/Read"))

    assert (replay.unreadable, replay.readable) == (1, 2)


def test_a_log_of_another_policy_is_noticed() -> None:
    assert replayed(line("/ledger/Read", rule="other"), line("/other")).surprising == 2


def test_it_decides_as_the_policy_does() -> None:
    """Where a rule with conditions cannot match, the next one decides."""
    document = {**OLD, "allow_rules": [{**GOLD, "source": {"clients": ["c1"]}}, {"name": "any"}]}
    policy = Policy.from_document(document)
    for client, conditional in (("c1", 1), ("c2", 0)):
        who = Principal(org_id="org_a", client_id=client, subject=client)
        assert policy.admit(Call(method="/gold", metadata=()), who) == "any"

        replay = Replay(policy, Policy.from_document({**document, "deny_rules": [{"name": "all"}]}))
        replay.feed([line("/gold", client=client, rule="any")])

        assert (replay.conditional, replay.replayed) == (conditional, 1 - conditional)
