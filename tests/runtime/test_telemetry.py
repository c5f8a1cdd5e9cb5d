import logging

import pytest

from authz.runtime import telemetry
from authz.runtime.text.printable import MAX_CHARACTERS


@pytest.fixture(autouse=True)
def _everything(caplog):
    caplog.set_level(logging.DEBUG, "authz")


def test_an_event_is_one_record_of_the_logger_authz(caplog):
    telemetry.event(telemetry.WARNING, "jwks_fetch_failed", url="https://a", tries=2)

    (record,) = caplog.records
    assert (record.name, record.levelno) == ("authz", logging.WARNING)
    assert record.getMessage() == "jwks_fetch_failed url='https://a' tries=2"


def test_an_event_has_its_parts(caplog):
    telemetry.event(telemetry.INFO, "call_refused", reason="token_expired")

    (record,) = caplog.records
    assert (record.event, record.fields) == ("call_refused", {"reason": "token_expired"})


@pytest.mark.parametrize("value", ["a\nb", "a\r\nb", "\x1b[31m", "\u2028", "é", "\ud800", "%s %d %", "\0"])
def test_a_value_cannot_forge_or_break_a_line(caplog, value):
    """D11."""
    telemetry.event(telemetry.INFO, "call_refused", method=value)

    message = caplog.records[0].getMessage()
    assert message.isascii()
    assert message.isprintable()


def test_a_long_value_is_shortened_in_every_log(caplog):
    telemetry.event(telemetry.INFO, "call_refused", method="/" + "\x1b" * 3_000_000)

    (record,) = caplog.records
    assert len(record.fields["method"]) <= MAX_CHARACTERS
    assert len(record.getMessage()) < 5 * MAX_CHARACTERS
    assert "more characters" in record.getMessage()


def test_a_field_may_have_any_name(caplog):
    telemetry.event(telemetry.INFO, "odd", level=1, name="n", message="m", args=())

    assert caplog.records[0].fields == {"level": 1, "name": "n", "message": "m", "args": ()}


def test_what_is_not_logged_costs_nothing(caplog):
    class Precious:
        def __repr__(self):
            raise AssertionError("nobody asked")

    caplog.set_level(logging.ERROR, "authz")
    telemetry.event(telemetry.INFO, "call_refused", value=Precious())

    assert caplog.records == []


def fails():
    raise LookupError("the token is eyJ…")


def test_the_unforeseen_is_told_by_type_and_place(caplog):
    try:
        fails()
    except LookupError as error:
        telemetry.unforeseen("authorize", error)

    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    line = fails.__code__.co_firstlineno + 1
    assert record.fields == {"where": "authorize", "error": "LookupError", "at": f"{__name__}:{line}"}


def test_the_unforeseen_does_not_speak(caplog):
    """An exception's text may hold a token."""
    try:
        fails()
    except LookupError as error:
        telemetry.unforeseen("authorize", error)

    assert "eyJ" not in caplog.text


def test_the_unforeseen_may_have_no_place(caplog):
    telemetry.unforeseen("authorize", KeyError("never raised"))

    assert caplog.records[0].fields["at"] == "?"
