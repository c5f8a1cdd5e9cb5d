"""What organizations use is counted, all of it, however callers name what they call."""

import threading
from collections import Counter
from dataclasses import replace

import pytest

from authz.call.principal import ANONYMOUS
from authz.decisions.usage import MINUTE, OTHER, Row, Rows, Usage
from authz.errors import AuthzError, PermissionDeniedError, UnavailableError
from tests.decisions.samples import ACME, decision
from tests.doubles import NOW

THIS_MINUTE = int(NOW) // MINUTE * MINUTE


def named(organization: str = "org_01JYACME", method: str = "/a.B/C", verdict: str = "allowed") -> Row:
    return Row(THIS_MINUTE, organization, "client_01JYPARTNER", method, verdict, "envoy")


def of(organization: str):
    return replace(ACME, org_id=organization)


def test_decisions_are_counted_by_organization_client_method_verdict_door_and_minute():
    usage = Usage()
    for _ in range(3):
        usage(decision())
    usage(decision(PermissionDeniedError()))
    usage(decision(UnavailableError()))
    usage(decision(principal=of("org_b"))._replace(door="grpc", time=NOW + MINUTE))

    assert usage.take() == {
        named(): 3,
        named(verdict="denied"): 1,
        named(verdict="undecided"): 1,
        named("org_b")._replace(door="grpc", time=THIS_MINUTE + MINUTE): 1,
    }


def test_what_is_taken_is_taken_once():
    usage = Usage()
    usage(decision())
    usage.take()
    usage(decision(method="/a.B/D"))

    assert usage.take() == {named(method="/a.B/D"): 1}
    assert usage.take() == {}


def test_the_end_of_a_stream_is_not_another_call():
    usage = Usage()
    usage(decision(PermissionDeniedError())._replace(event="stream_ended"))

    assert usage.take() == {}


@pytest.mark.parametrize("principal", [ANONYMOUS, ACME], ids=["anonymous", "known"])
@pytest.mark.parametrize("error", [PermissionDeniedError(), UnavailableError()], ids=["denied", "undecided"])
def test_methods_of_which_no_call_was_allowed_are_counted_under_one_name(principal, error: AuthzError):
    usage = Usage()
    for number in range(100):
        usage(decision(error, principal, method=f"/made.up/Name{number}"))

    [(row, count)] = usage.take().items()
    assert (row.method, row.organization, count) == (OTHER, principal.org_id, 100)


def test_a_method_that_was_allowed_is_named_when_it_is_refused():
    usage = Usage()
    usage(decision(principal=of("org_b")))
    usage(decision(PermissionDeniedError()))

    assert usage.take() == {named("org_b"): 1, named(verdict="denied"): 1}


def test_an_organization_names_half_of_the_methods_that_are_free_and_leaves_room_for_others():
    usage = Usage(max_methods=8)
    for number in range(20):
        usage(decision(method=f"/flood/{number}"))
    usage(decision(principal=of("org_b"), method="/b/1"))

    rows = usage.take()
    assert rows[named(method=OTHER)] == 16
    assert rows[named("org_b", "/b/1")] == 1
    assert rows.total() == 21
    # Those that have names keep them.
    usage(decision(method="/flood/0"))
    assert usage.take() == {named(method="/flood/0"): 1}


def test_a_long_name_is_cut_and_counted():
    usage = Usage()
    for _ in range(2):
        usage(decision(method="/" + "x" * 5000))

    assert usage.take() == {named(method="/" + "x" * 511): 2}


def test_rows_without_room_become_coarser_and_none_is_lost():
    usage = Usage(max_rows=4)
    for minute in range(10):
        usage(decision()._replace(time=NOW + minute * MINUTE))
    usage(decision(principal=of("org_b")))

    rows = usage.take()
    assert rows[named("org_b")] == 1
    assert rows.total() == 11
    assert rows.coarser == 8
    coarse = [row for row in rows if row.method == OTHER]
    assert {(row.client, row.organization) for row in coarse} == {(OTHER, "org_01JYACME"), (OTHER, OTHER)}
    assert len(rows) <= 3 * 4
    # There is room again.
    usage(decision())
    assert usage.take() == {named(): 1}


def test_rows_are_bounded_however_many_organizations_there_are():
    rows = Rows(10)
    for number in range(1000):
        rows.add(named(f"org_{number}"), 2)

    assert len(rows) == 21
    assert rows.total() == 2000
    assert rows[Row(THIS_MINUTE // 3600 * 3600, OTHER, OTHER, OTHER, "allowed", "envoy")] == 2 * 980


def test_threads_count_every_decision_while_another_takes():
    usage, taken = Usage(), Counter[Row]()
    started = threading.Barrier(5)

    def decide():
        started.wait()
        for number in range(5000):
            usage(decision(method=f"/a.B/{number % 7}"))

    threads = [threading.Thread(target=decide) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    while any(thread.is_alive() for thread in threads):
        taken.update(usage.take())
    taken.update(usage.take())

    assert taken.total() == 20_000
    assert len({row.method for row in taken}) == 7
