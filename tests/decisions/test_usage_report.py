"""Usage is grouped as asked for, and every call is in one group."""

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.decisions.usage import Row
from authz.decisions.usage_report import COLUMNS, Query, Report, columns_of, logged_row
from authz.errors import ConfigError, PermissionDeniedError
from tests.decisions.samples import decision

AT = int(datetime(2026, 11, 28, 22, 41, tzinfo=UTC).timestamp())
VERDICTS = st.sampled_from(["allowed", "denied"])


def row(organization: str = "org_a", method: str = "/a", verdict: str = "allowed", time: int = AT) -> Row:
    return Row(time, organization, "client", method, verdict, "envoy")


def reported(query: Query, *counts: tuple[Row, int]) -> list[tuple[str | int, ...]]:
    report = Report(query)
    for each, count in counts:
        report.add(each, count)
    lines = list(report.lines())
    assert all(len(line) == len(report.columns) for line in lines)
    assert sum(int(line[len(query.by)]) for line in lines) == report.calls
    return lines


def test_the_largest_group_is_first_and_refusals_are_beside_it():
    counts = [(row(), 2), (row("org_b"), 5), (row("org_b", verdict="denied"), 1), (row("org_c", method="/b"), 2)]

    assert reported(Query(), *counts) == [("org_b", 6, 5, 1), ("org_a", 2, 2, 0), ("org_c", 2, 2, 0)]
    assert reported(Query(("method", "verdict")), *counts) == [
        ("/a", "allowed", 7),
        ("/b", "allowed", 2),
        ("/a", "denied", 1),
    ]


def test_times_come_in_their_order_and_in_utc():
    counts = [(row(time=AT + 3600 * 2), 9), (row(), 1), (row("org_b", time=AT + 60), 3)]

    assert reported(Query(("day",)), *counts) == [("2026-11-28", 4, 4, 0), ("2026-11-29", 9, 9, 0)]
    assert reported(Query(("organization", "hour")), *counts) == [
        ("org_b", "2026-11-28T22Z", 3, 3, 0),
        ("org_a", "2026-11-28T22Z", 1, 1, 0),
        ("org_a", "2026-11-29T00Z", 9, 9, 0),
    ]
    assert [line[0] for line in reported(Query(("minute",)), *counts)] == [
        "2026-11-28T22:41Z",
        "2026-11-28T22:42Z",
        "2026-11-29T00:41Z",
    ]


def test_what_lies_outside_is_not_counted():
    counts = [(row(time=AT - 1), 1), (row(time=AT), 2), (row(time=AT + 59), 4), (row(time=AT + 60), 8)]

    assert reported(Query(since=AT, until=AT + 60), *counts) == [("org_a", 6, 6, 0)]
    assert reported(Query(("verdict",), organization="org_b"), *counts, (row("org_b"), 1)) == [("allowed", 1)]


@given(
    st.sets(st.sampled_from(COLUMNS), min_size=1),
    st.lists(
        st.tuples(
            st.builds(
                row,
                *(st.sampled_from("xy"),) * 2,
                st.sampled_from(["allowed", "denied"]),
                st.integers(0, 2_000_000_000),
            ),
            st.integers(1, 1000),
        )
    ),
)
def test_every_grouping_has_every_call(by, counts):
    report = Report(Query(tuple(by)))
    for each, count in counts:
        report.add(each, count)
    counted = [line[len(report.group_columns) :] for line in report.lines()]

    assert sum(line[0] for line in counted) == sum(count for _, count in counts) == report.calls
    assert all(line[1] + line[2] == line[0] for line in counted if len(line) == 3)


def test_what_applications_are_called_stands_beside_their_ids():
    report = Report(Query(("client", "organization")))
    report.add(Row(0, "org_1", "client_1", "/a", "allowed", "envoy"), 2)
    report.add(Row(0, "org_1", "client_2", "/a", "denied", "envoy"), 1)
    report.client_names = {"client_1": "Tills"}

    assert report.columns == ("client", "client_name", "organization", "calls", "allowed", "refused")
    assert list(report.lines()) == [("client_1", "Tills", "org_1", 2, 2, 0), ("client_2", "", "org_1", 1, 0, 1)]
    assert report.clients == {"client_1", "client_2"}


def test_columns_are_named_as_they_are_called():
    assert columns_of(["client", "day", "client"]) == ("client", "day")
    for wrong in (["tenant"], ["Client"], [""], []):
        with pytest.raises(ConfigError, match=r"by: .* is none of organization, client,"):
            columns_of(wrong)


def test_a_line_of_the_log_counts_like_the_decision():
    fields = decision(PermissionDeniedError()).fields()

    time = int(datetime.fromisoformat(fields["time"]).timestamp())
    assert logged_row(fields) == Row(time, "org_01JYACME", "client_01JYPARTNER", "/a.B/C", "denied", "envoy")


@pytest.mark.parametrize(
    ("name", "value"),
    [*itertools.product(["method", "organization", "time"], [None, 1, []]), ("time", "soon"), ("time", "2026-11-28")],
)
def test_what_is_no_decision_is_not_counted(name: str, value: object):
    with pytest.raises((TypeError, ValueError)):
        logged_row({**decision().fields(), name: value})
