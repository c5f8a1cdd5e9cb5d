"""How the commands write their log: one line per event, whoever logs it."""

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest

from authz import logs, telemetry

pytestmark = pytest.mark.usefixtures("restored_logging")

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    """Return a function that reads what has been written since."""

    def read() -> list[dict[str, Any]]:
        captured = capsys.readouterr()
        assert captured.out == ""
        return [json.loads(line) for line in captured.err.splitlines()]

    return read


def test_event_is_one_line_of_json_with_its_fields(lines: Lines) -> None:
    logs.configure("info", "json")
    telemetry.event(telemetry.INFO, "listening", addresses=["127.0.0.1:9191"], count=2)
    [line] = lines()

    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "listening", "level": "info", "addresses": ["127.0.0.1:9191"], "count": 2}


def test_other_libraries_are_written_alike(lines: Lines) -> None:
    logs.configure("info", "json")
    logging.getLogger("elsewhere").warning("a %s", "word")
    [line] = lines()

    assert (line["event"], line["level"]) == ("a word", "warning")


def test_value_with_a_line_break_forges_no_second_line(lines: Lines) -> None:
    logs.configure("info", "json")
    telemetry.event(telemetry.INFO, "call_refused", method='/a\n{"event": "call_allowed"}')
    [line] = lines()

    assert line["method"] == '/a\n{"event": "call_allowed"}'


@pytest.mark.parametrize(
    ("level", "expected"),
    [("debug", ["d", "i", "w", "e"]), ("info", ["i", "w", "e"]), ("warning", ["w", "e"]), ("error", ["e"])],
)
def test_nothing_below_the_level_is_written(lines: Lines, level: str, expected: list[str]) -> None:
    logs.configure(level, "json")
    for number, name in ((10, "d"), (20, "i"), (30, "w"), (40, "e")):
        telemetry.event(number, name)

    assert [line["event"] for line in lines()] == expected


def test_auto_is_json_where_there_is_no_terminal(lines: Lines) -> None:
    assert not sys.stderr.isatty()
    logs.configure("info")
    telemetry.event(telemetry.INFO, "stopped")

    assert [line["event"] for line in lines()] == ["stopped"]


def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "text")
    telemetry.event(telemetry.INFO, "health", status="SERVING")
    [line] = capsys.readouterr().err.splitlines()

    assert "health" in line
    assert "status=SERVING" in line
    assert "\x1b" not in line


def test_urls_that_are_asked_are_not_repeated(lines: Lines) -> None:
    logs.configure("debug", "json")
    logging.getLogger("httpx2").info("HTTP Request: GET https://acme.authkit.app/oauth2/jwks")

    assert lines() == []
