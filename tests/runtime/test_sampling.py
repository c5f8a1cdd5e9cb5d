"""What any caller can cause is logged a bounded number of times, in programs of others as in ours."""

import logging

import pytest

from authz import LogSampling
from authz.runtime import telemetry
from tests.doubles import ManualClock, start_afresh


def test_what_anybody_can_cause_is_written_a_bounded_number_of_times(clock: ManualClock) -> None:
    sampling = LogSampling(monotonic=clock.clock.monotonic)

    def written(reason: str) -> list[logging.LogRecord]:
        records = [
            logging.makeLogRecord({"event": "call_refused", "fields": {"method": f"/a.B/{number}", "reason": reason}})
            for number in range(50)
        ]
        return [record for record in records if sampling.filter(record)]

    assert len(written("token_expired")) == len(written("token_missing")) == 20
    assert written("token_expired") == []
    clock.advance(10)

    assert [getattr(written("token_expired")[0], "fields", {}).get("suppressed")] == [80]


def test_each_change_that_a_shadow_would_make_is_bounded_by_itself(clock: ManualClock) -> None:
    sampling = LogSampling(monotonic=clock.clock.monotonic)

    def written(change: str) -> int:
        fields = {"method": "/a.B/C", "change": change}
        return sum(
            sampling.filter(logging.makeLogRecord({"event": "shadow_differs", "fields": fields})) for _ in range(50)
        )

    assert [written("allowed_to_denied"), written("denied_to_allowed")] == [20, 20]


def test_what_an_operator_must_know_is_never_left_out(clock: ManualClock) -> None:
    sampling = LogSampling(monotonic=clock.clock.monotonic)
    record = logging.makeLogRecord({"event": "jwks_fetch_failed", "fields": {"url": "https://acme.authkit.app"}})

    assert all(sampling.filter(record) for _ in range(100))


def test_logger_of_the_library_can_be_sampled_by_any_program(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    caplog.set_level("INFO", "authz")
    monkeypatch.setattr(logging.getLogger("authz"), "filters", [LogSampling(burst=3, monotonic=clock.clock.monotonic)])
    for number in range(50):
        telemetry.event(telemetry.INFO, "call_refused", method=f"/a.B/{number}", reason="token_expired")
        telemetry.event(telemetry.INFO, "policy_replaced", policy=f"{number}")

    assert len([record for record in caplog.records if record.message.startswith("call_refused ")]) == 3
    assert len([record for record in caplog.records if record.message.startswith("policy_replaced ")]) == 50


class Counted:
    """Stands for the name of a reason, and counts how often it is written out."""

    def __init__(self) -> None:
        self.written = 0

    def __repr__(self) -> str:
        self.written += 1
        return "'token_expired'"


def test_nothing_is_made_of_what_is_not_written(caplog: pytest.LogCaptureFixture, clock: ManualClock) -> None:
    caplog.set_level("INFO", "authz")
    reason = Counted()
    telemetry.sample(LogSampling(burst=3, monotonic=clock.clock.monotonic))
    try:
        for number in range(50):
            telemetry.event(telemetry.INFO, "call_refused", method=f"/a.B/{number}", reason=reason)
        clock.advance(10)
        telemetry.event(telemetry.INFO, "call_refused", method="/a.B/C", reason=reason)
    finally:
        telemetry.sample(None)

    assert (len(caplog.records), reason.written) == (4, 4)
    assert getattr(caplog.records[-1], "fields", {})["suppressed"] == 47


def test_child_of_a_fork_has_a_period_of_its_own(clock: ManualClock) -> None:
    sampling = LogSampling(burst=1, monotonic=clock.clock.monotonic)
    record = logging.makeLogRecord({"event": "call_refused", "fields": {"method": "/a.B/C", "reason": "token_expired"}})
    assert [sampling.filter(record), sampling.filter(record)] == [True, False]
    start_afresh(sampling)

    assert sampling.filter(record)
