"""How the commands write their log: one line per event, from any library."""

import contextlib
import json
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from authz.cli import logs
from authz.runtime import telemetry
from tests.events import told
from tests.full_disk import room_for

pytestmark = pytest.mark.usefixtures("restored_logging")

Lines = Callable[[], list[dict[str, Any]]]


Configure = Callable[..., None]


@pytest.fixture
def ending() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as ending:
        yield ending


@pytest.fixture
def configure(ending: contextlib.ExitStack) -> Configure:
    return lambda *arguments: ending.callback(logs.configure(*arguments)) and None


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str], ending: contextlib.ExitStack) -> Lines:
    """Return a function that reads what has been written since."""

    def read() -> list[dict[str, Any]]:
        ending.close()
        captured = capfd.readouterr()
        assert captured.out == ""
        return [json.loads(line) for line in captured.err.splitlines()]

    return read


def test_event_is_one_line_of_json_with_its_fields(configure: Configure, lines: Lines) -> None:
    configure("info", "json")
    telemetry.event(telemetry.INFO, "listening", addresses=["127.0.0.1:9191"], count=2)
    [line] = lines()

    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "listening", "level": "info", "addresses": ["127.0.0.1:9191"], "count": 2}


def test_other_libraries_are_written_alike(configure: Configure, lines: Lines) -> None:
    configure("info", "json")
    logging.getLogger("elsewhere").warning("a %s", "word")
    [line] = lines()

    assert (line["event"], line["level"]) == ("a word", "warning")


def test_value_with_a_line_break_forges_no_second_line(configure: Configure, lines: Lines) -> None:
    configure("info", "json")
    telemetry.event(telemetry.INFO, "call_refused", method='/a\n{"event": "call_allowed"}')
    [line] = lines()

    assert line["method"] == '/a\n{"event": "call_allowed"}'


@pytest.mark.parametrize(
    ("level", "expected"),
    [("debug", ["d", "i", "w", "e"]), ("info", ["i", "w", "e"]), ("warning", ["w", "e"]), ("error", ["e"])],
)
def test_nothing_below_the_level_is_written(
    configure: Configure, lines: Lines, level: str, expected: list[str]
) -> None:
    configure(level, "json")
    for number, name in ((10, "d"), (20, "i"), (30, "w"), (40, "e")):
        telemetry.event(number, name)

    assert [line["event"] for line in lines()] == expected


def test_auto_is_json_where_there_is_no_terminal(configure: Configure, lines: Lines) -> None:
    assert not sys.stderr.isatty()
    configure("info")
    telemetry.event(telemetry.INFO, "stopped")

    assert [line["event"] for line in lines()] == ["stopped"]


def test_text_is_for_people(capfd: pytest.CaptureFixture[str]) -> None:
    end = logs.configure("info", "text")
    telemetry.event(telemetry.INFO, "health", status="SERVING")
    end()
    [line] = capfd.readouterr().err.splitlines()

    assert "health" in line
    assert "status=SERVING" in line
    assert "\x1b" not in line


ATTACKS = ["\x1b[2J", "\x9b2J", "\u202e", "\u2028", "\u2029", "\u200b", "\r", "\n", "\x00", "\x7f", "\ud800", "\ue000"]


@pytest.mark.parametrize("attack", ATTACKS, ids=ascii)
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_text_of_a_caller_does_anything_on_a_terminal(
    capfd: pytest.CaptureFixture[str], log_format: str, attack: str
) -> None:
    end = logs.configure("info", log_format)
    path = f"/a{attack}B"
    telemetry.event(telemetry.INFO, "call_refused", method=path, several=[path], named={"one": path})
    logging.getLogger("elsewhere").warning("a path: %s", path)
    end()
    lines = capfd.readouterr().err.split("\n")[:-1]

    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert all("/a" in line and "B" in line for line in lines)


def test_letters_of_every_script_are_read_in_a_text_log(capfd: pytest.CaptureFixture[str]) -> None:
    end = logs.configure("info", "text")
    telemetry.event(telemetry.INFO, "call_refused", method="/Müller/株式会社")
    end()

    assert "method=/Müller/株式会社" in capfd.readouterr().err


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_path_of_megabytes_is_told_in_part(capfd: pytest.CaptureFixture[str], log_format: str) -> None:
    end = logs.configure("info", log_format)
    path = "/a" + "\x1b" * 3_000_000
    telemetry.event(telemetry.INFO, "call_refused", method=path, named={"one": path})
    logging.getLogger("elsewhere").warning("a path: %s", path)
    end()
    lines = capfd.readouterr().err.splitlines()

    assert len(lines) == 2
    assert all(len(line) < 20_000 and "more characters" in line for line in lines)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_of_an_exception_that_another_library_logs_type_and_place_are_told(
    capfd: pytest.CaptureFixture[str], log_format: str
) -> None:
    end = logs.configure("info", log_format)

    def fail() -> None:
        token = "eyJ-token"
        raise LookupError(f"there is no {token}")

    try:
        fail()
    except LookupError:
        logging.getLogger("elsewhere").exception("Exception in an application\n")
    end()
    text = capfd.readouterr().err

    assert "eyJ" not in text
    assert "LookupError" in text
    assert "tests.cli.test_logs:" in text
    assert len(text.splitlines()) == 1


def test_what_waits_to_be_written_holds_no_frame_and_no_argument(capfd: pytest.CaptureFixture[str]) -> None:
    class Question:
        """What a record must not keep alive."""

    reading, writing = os.pipe()
    stderr, sys.stderr = sys.stderr, os.fdopen(writing, "w", buffering=1)
    try:
        end = logs.configure("info", "json")
        for _ in range(500):
            telemetry.event(telemetry.INFO, "much", text="x" * 1000)
        question = Question()
        watched = weakref.ref(question)
        try:
            _raise_beside(question)
        except LookupError:
            logging.getLogger("elsewhere").exception("of %s", question)
        del question

        assert watched() is None
    finally:
        os.close(reading)
        end()
        with contextlib.suppress(BrokenPipeError):
            sys.stderr.close()
        sys.stderr = stderr
        capfd.readouterr()


@pytest.mark.parametrize("show", [str, repr], ids=["str", "repr"])
def test_message_does_not_repeat_the_text_of_its_exception(
    configure: Configure, lines: Lines, show: Callable[[object], str]
) -> None:
    """As those of asyncio and gRPC do."""
    configure("info", "json")
    error = LookupError("there is no eyJ-token\n'")
    logging.getLogger("elsewhere").error("Exception calling application: %s", show(error), exc_info=error)
    [line] = lines()

    assert (line["event"], line["error"]) == ("Exception calling application: […]", "LookupError")
    assert "eyJ" not in str(line)


def _raise_beside(question: object) -> None:
    raise LookupError(id(question))


def test_a_message_that_cannot_be_made_is_written_without_its_arguments(configure: Configure, lines: Lines) -> None:
    configure("info", "json")
    logging.getLogger("elsewhere").warning("a %d", "\x1b[2J")

    assert [line["event"] for line in lines()] == ["a %d"]


def test_refusals_of_one_kind_are_written_a_bounded_number_of_times(configure: Configure, lines: Lines) -> None:
    configure("info", "json")
    for number in range(100):
        telemetry.event(telemetry.INFO, "call_refused", method=f"/a.B/{number}", reason="token_expired")

    assert len(lines()) == 20


def test_log_that_has_ended_leaves_out_nothing(caplog: pytest.LogCaptureFixture) -> None:
    logs.configure("info", "json")()
    caplog.set_level("INFO", "authz")
    logging.getLogger().addHandler(caplog.handler)
    for number in range(100):
        telemetry.event(telemetry.INFO, "call_refused", method=f"/a.B/{number}", reason="token_expired")

    assert len(caplog.records) == 100


def test_urls_that_are_asked_are_not_repeated(configure: Configure, lines: Lines) -> None:
    configure("debug", "json")
    logging.getLogger("httpx2").info("HTTP Request: GET https://acme.authkit.app/oauth2/jwks")

    assert lines() == []


def test_log_without_a_reader_delays_no_caller(capfd: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    stderr, sys.stderr = sys.stderr, os.fdopen(writing, "w", buffering=1)
    try:
        end = logs.configure("info", "json")
        # More than a pipe holds, and more than may wait.
        logger = threading.Thread(target=lambda: [telemetry.event(20, "much", text="x" * 1000) for _ in range(2000)])
        logger.start()
        logger.join(120)

        assert not logger.is_alive()
    finally:
        # The thread that waits for a reader learns that there is none.
        os.close(reading)
        end()
        with contextlib.suppress(BrokenPipeError):
            sys.stderr.close()
        sys.stderr = stderr
        capfd.readouterr()


def test_after_a_full_disk_every_line_is_whole_but_one_and_the_next_says_how_many_are_missing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, stderr = tmp_path / "log", sys.stderr
    sys.stderr = path.open("w", buffering=1)
    try:
        end = logs.configure("info", "json")
        with room_for(300):
            for number in range(10):
                telemetry.event(telemetry.INFO, "first", number=number)
            end()
        end = logs.configure("info", "json")
        telemetry.event(telemetry.INFO, "second")
        end()
    finally:
        sys.stderr.close()
        sys.stderr = stderr
    *_, torn, last = path.read_text(encoding="utf-8").splitlines()

    assert json.loads(last)["event"] == "second"
    with pytest.raises(json.JSONDecodeError):
        json.loads(torn)
    assert capfd.readouterr().err == ""


def log_event(name: str, value: object) -> None:
    """Log ``value``, which is not read before it is written."""
    logging.getLogger("authz").info(name, extra={"event": name, "fields": {"value": value}})


def test_what_cannot_be_written_is_counted_and_told_with_the_next(configure: Configure, lines: Lines) -> None:
    class Odd:
        def __repr__(self) -> str:
            raise LookupError("eyJ-token")

    configure("info", "json")
    for value in (Odd(), Odd(), 1):
        log_event("odd", value)
    telemetry.event(telemetry.INFO, "next")
    written = lines()

    assert [(line["event"], line.get("dropped")) for line in written] == [("odd", 2), ("next", None)]


def test_thread_that_dies_while_it_writes_is_begun_again(configure: Configure, lines: Lines) -> None:
    class Deadly:
        def __repr__(self) -> str:
            raise SystemExit

    configure("info", "json")
    with told("thread_died"):
        for value in (Deadly(), 1):
            log_event("deadly", value)
    written = lines()

    assert {line["event"]: line.get("dropped") for line in written} == {"deadly": 1, "thread_died": None}


def test_what_stands_for_standard_error_need_be_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    end = logs.configure("info", "json")
    telemetry.event(telemetry.INFO, "stopped")
    end()

    assert json.loads(capsys.readouterr().err)["event"] == "stopped"
