"""What the page is told was decided, in bounds."""

import json
from dataclasses import replace
from typing import Any

import pytest

from authz.decisions.decision import Decision
from authz.errors import KeySetUnavailableError, PermissionDeniedError, TokenExpiredError
from authz.policy import Policy
from authz.runtime.clock import Clock
from authz.server.admin.activity import BUCKETS, MAX_CLIENTS, MAX_ORGANIZATIONS, MAX_TOLD, RECENT, Activity
from authz.server.admin.news import News
from tests.decisions.samples import ACME, decision
from tests.doubles import ManualClock

RULES = {"name": "ledger", "deny_rules": [{"name": "readers"}], "allow_rules": [{"name": "readers"}]}


def of(organization: str, client: str = "client_1") -> Decision:
    return decision(principal=replace(ACME, org_id=organization, client_id=client))


def told(activity: Activity, after: str = "") -> dict[str, Any]:
    """Return what one who has seen the decisions up to a cursor is told."""
    news: dict[str, Any] = json.loads(News(activity.recent()._asdict()).after(after))
    return news


@pytest.fixture
def activity(clock: ManualClock) -> Activity:
    return Activity(clock=clock.clock)


def test_decision_is_told_without_its_token(activity: Activity) -> None:
    activity(decision(TokenExpiredError(), credentials="Bearer a-secret-token"))
    [one] = activity.recent().decisions

    assert (one["verdict"], one["reason"], one["method"]) == ("denied", "token_expired", "/a.B/C")
    assert (one["organization"], one["client"], one["milliseconds"]) == (ACME.org_id, ACME.client_id, 1.234)
    assert "a-secret-token" not in repr(vars(activity))
    assert "claim" not in repr(vars(activity))


def test_cursor_leads_to_what_came_after_it(activity: Activity) -> None:
    activity(decision(method="/first"))
    before = told(activity)
    activity(decision(method="/second"))
    after = told(activity, before["cursor"])

    assert [one["method"] for one in after["decisions"]] == ["/second"]
    assert told(activity, after["cursor"])["decisions"] == []
    assert len(told(activity, "another-1")["decisions"]) == 2


def test_cursor_is_found_among_those_of_other_processes(activity: Activity) -> None:
    activity(decision())
    cursor = activity.recent().cursor

    assert told(activity, f"aaaaaaaa-7,{cursor},bbbbbbbb-9")["decisions"] == []


@pytest.mark.parametrize("after", ["-", ",,", "x" * 4000, "é-1", "aaaaaaaa-²", f"aaaaaaaa-{'9' * 4000}"])
def test_cursor_that_is_none_is_as_good_as_none(activity: Activity, after: str) -> None:
    activity(decision())

    assert len(told(activity, after)["decisions"]) == 1


def test_flood_of_allowed_calls_hides_no_refusal(activity: Activity) -> None:
    activity(decision(TokenExpiredError(), method="/refused"))
    cursor = activity.recent().cursor
    for _ in range(3 * RECENT):
        activity(decision())
    all_that_is_kept, news = told(activity), told(activity, cursor)

    assert all_that_is_kept["decisions"][0]["method"] == "/refused"
    assert len(news["decisions"]) == MAX_TOLD
    assert news["missed"] == 3 * RECENT - MAX_TOLD


def test_organizations_are_counted_in_bounds(activity: Activity) -> None:
    for number in range(MAX_ORGANIZATIONS + 1):
        activity(of(f"org_{number}"))
    activity(of("org_1"))
    listed = activity.organizations(2 * MAX_ORGANIZATIONS)

    assert len(listed) == MAX_ORGANIZATIONS
    assert (listed[0]["id"], listed[0]["allowed"]) == ("org_1", 2)
    assert "org_0" not in {each["id"] for each in listed}
    assert len(activity.organizations(3)) == 3


def test_clients_of_an_organization_are_counted_in_bounds(activity: Activity) -> None:
    for number in range(2 * MAX_CLIENTS):
        activity(of("org_1", f"client_{number}"))
    [listed] = activity.organizations(10)

    assert (listed["allowed"], len(listed["clients"])) == (2 * MAX_CLIENTS, MAX_CLIENTS)


def test_method_that_a_caller_made_long_is_kept_short(activity: Activity) -> None:
    activity(decision(method="/" + "a" * 10_000))

    assert len(activity.recent().decisions[0]["method"]) == 512


def test_http_method_is_told_and_kept_short(activity: Activity) -> None:
    activity(decision(verb="DELETE"))
    activity(decision(verb="A" * 10_000))

    assert [one["verb"] for one in activity.recent().decisions] == ["DELETE", "A" * 33]


def test_totals_and_reasons_are_those_of_the_verdicts(activity: Activity) -> None:
    for error in (None, None, TokenExpiredError(), KeySetUnavailableError()):
        activity(decision(error))

    assert activity.totals() == {"allowed": 2, "denied": 1, "undecided": 1, "failed": 0}
    assert {each["reason"]: each["count"] for each in activity.reasons()} == {
        "token_expired": 1,
        "key_set_unavailable": 1,
    }


def test_pace_is_kept_for_five_minutes(activity: Activity) -> None:
    for second in range(0, 5 * 2 * BUCKETS, 5):
        activity(decision()._replace(time=1000.0 + second))
        activity(decision(TokenExpiredError())._replace(time=1000.0 + second))

    assert activity.pace()[0] == (1000 + 5 * BUCKETS, 1, 1)
    assert len(activity.pace()) == BUCKETS


def test_rule_is_counted_in_the_list_in_which_it_stands(clock: ManualClock) -> None:
    policy = Policy.from_document(RULES)
    activity = Activity(lambda: policy, clock=clock.clock)
    activity(decision())
    activity(decision(PermissionDeniedError(reason="policy_denied")))
    # The rule let it pass; what came after it did not.
    activity(decision(PermissionDeniedError(reason="organization_mismatch")))
    _, hits = activity.hits()

    assert {rule: count for rule, (count, _) in hits.items()} == {
        ("allow_rules", "readers"): 2,
        ("deny_rules", "readers"): 1,
    }


def test_another_policy_is_counted_from_when_it_came() -> None:
    policies, now = [Policy.from_document(RULES)], [100.0]
    activity = Activity(lambda: policies[-1], clock=Clock(lambda: now[-1], lambda: 0.0))
    activity(decision())
    policies.append(Policy.from_document(RULES))
    now.append(200.0)

    assert activity.hits() == (200.0, {})
