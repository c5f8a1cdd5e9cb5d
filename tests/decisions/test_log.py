"""Decisions as JSON lines: all that an operator needs, nothing secret, and no decision waits for them."""

import contextlib
import json
import os
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, Self, cast

import pytest

from authz.call.principal import ANONYMOUS
from authz.call.verb import is_verb
from authz.decisions.decision import Decision
from authz.decisions.log import DecisionLog
from authz.errors import ConfigError, KeySetUnavailableError, PermissionDeniedError, TokenMissingError
from tests.decisions.samples import ACME, Metadata, decision
from tests.doubles import eventually
from tests.events import told
from tests.full_disk import room_for


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@contextlib.contextmanager
def stalled(path: Path) -> Iterator[str]:
    """Make a pipe that is full, and that has no reader until the end of the block."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    try:
        yield str(path)
    finally:
        # Without a reader, a writer that waits gets an error.
        os.close(reader)
        os.close(writer)


def test_line_tells_who_called_what_and_why_it_was_decided_so(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog("all", str(path))
    log(decision())
    log(decision(PermissionDeniedError(reason="insufficient_scope")))
    log.close()
    allowed, denied = lines(path)

    assert allowed == {
        "time": "2027-01-15T08:00:00.250000+00:00",
        "event": "decision",
        "door": "envoy",
        "method": "/a.B/C",
        "verb": "POST",
        "verdict": "allowed",
        "code": "OK",
        "reason": "",
        "organization": "org_01JYACME",
        "client": "client_01JYPARTNER",
        "client_name": "",
        "subject": "client_01JYPARTNER",
        "scopes": ["ledger:read", "ledger:write"],
        "token_id": "01JYTOKEN",
        "key_id": "key-1",
        "key_age": 12.5,
        "policy": "ledger",
        "rule": "readers",
        "shadow_verdict": "denied",
        "shadow_rule": "next",
        "source": "cache",
        "order_source": "",
        "milliseconds": 1.234,
    }
    assert (denied["verdict"], denied["code"], denied["reason"], denied["organization"]) == (
        "denied",
        "PERMISSION_DENIED",
        "insufficient_scope",
        "org_01JYACME",
    )


def test_denied_leaves_out_what_is_allowed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog("denied", str(path))
    for error in (None, TokenMissingError(), KeySetUnavailableError()):
        log(decision(error, ANONYMOUS))
    log.close()

    assert [line["verdict"] for line in lines(path)] == ["denied", "undecided"]


def test_share_of_what_is_allowed_is_written_and_every_refusal(tmp_path: Path) -> None:
    path, drawn = tmp_path / "decisions.jsonl", iter([0.0, 0.24, 0.25, 0.99])
    log = DecisionLog("all", str(path), allowed_share=0.25, draw=lambda: next(drawn))
    for number in range(4):
        log(decision(method=f"/allowed/{number}"))
        log(decision(TokenMissingError(), method=f"/refused/{number}"))
    log.close()

    assert [line["method"] for line in lines(path) if line["verdict"] == "allowed"] == ["/allowed/0", "/allowed/1"]
    assert [line["method"] for line in lines(path) if line["verdict"] == "denied"] == [
        f"/refused/{number}" for number in range(4)
    ]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_share_that_is_none_is_a_mistake(share: float) -> None:
    with pytest.raises(ConfigError, match=r"^allowed_share: give a number from 0 to 1"):
        DecisionLog("all", os.devnull, allowed_share=share)


def test_line_holds_no_token_no_claim_and_one_line_only(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog("all", str(path))
    log(decision(method="/a\n{}" + "x" * 100_000, credentials="Bearer token-text"))
    log.close()
    [line] = path.read_text(encoding="utf-8").splitlines()

    assert len(line) < 2000
    assert "token-text" not in line
    assert "claim" not in line


def test_line_is_ascii_whatever_a_caller_and_a_token_say_and_of_what_is_long_it_has_the_beginning(
    tmp_path: Path,
) -> None:
    path, attack = tmp_path / "decisions.jsonl", "\x1b[2J\x7f\x9b\u202e\u2028\n\ud800"
    log = DecisionLog("all", str(path))
    principal = replace(ACME, subject=attack + "s" * 1_000_000, scopes=frozenset([attack]))
    log(decision(method=f"/a{attack}", principal=principal))
    log.close()
    line = path.read_bytes()
    told = json.loads(line)

    assert line.endswith(b"\n")
    assert line[:-1].isascii()
    assert line[:-1].decode().isprintable()
    assert len(line) < 4000
    assert told["method"].startswith("/a\x1b[2J")
    assert told["subject"].endswith(" more characters]")


def test_http_method_is_recorded_and_of_a_long_one_no_more_than_a_replay_needs(tmp_path: Path) -> None:
    """With one character more than a rule may name, a replay refuses it as the judge has."""
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog("all", str(path))
    for verb in ("DELETE", "get", "A" * 1_000_000, ""):
        log(decision(verb=verb))
    log.close()
    verbs = [line["verb"] for line in lines(path)]

    assert verbs == ["DELETE", "get", "A" * 33, ""]
    assert [is_verb(verb) for verb in verbs] == [True, False, False, False]


def test_log_without_a_reader_delays_no_decision_and_counts_drops(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = DecisionLog("all", str(pipe), capacity=100)
    # More than a pipe holds, and more than may wait.
    work = threading.Thread(target=lambda: [log(decision()) for _ in range(5000)])
    work.start()
    work.join(120)

    assert not work.is_alive()
    assert log.dropped >= 5000 - 100 - 65536 // 250
    os.close(reader)
    log.close()


def test_lines_of_several_writers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    logs = [DecisionLog("all", str(path)) for _ in range(3)]
    for _ in range(500):
        for log in logs:
            log(decision())
    for log in logs:
        log.close()

    assert len(lines(path)) == 1500


def test_file_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog("all", str(path))
    path.rename(tmp_path / "old.jsonl")
    log.reopen()
    log(decision())
    log.close()

    assert len(lines(path)) == 1


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_file_that_is_made_is_for_its_owner_and_group_to_read_and_one_that_is_there_stays_as_it_is(
    tmp_path: Path, umask: int
) -> None:
    (tmp_path / "there.jsonl").touch(0o600)
    before = os.umask(umask)
    try:
        for name in ("made.jsonl", "there.jsonl"):
            DecisionLog("all", str(tmp_path / name)).close()
    finally:
        os.umask(before)

    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("made.jsonl", "there.jsonl")] == [
        0o640 & ~umask,
        0o600,
    ]


def test_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"decision_log_file: .* cannot be opened"):
        DecisionLog("all", str(tmp_path / "missing" / "decisions.jsonl"))


def test_what_waits_for_a_stalled_reader_holds_nothing_of_the_question(tmp_path: Path) -> None:
    with stalled(tmp_path / "pipe") as pipe:
        log = DecisionLog("all", pipe)
        questions = []
        for _ in range(100):
            one = decision()
            metadata = Metadata([("authorization", "Bearer a"), ("x-padding", "x" * 58_000)])
            questions.append(weakref.ref(metadata))
            log(one._replace(call=one.call._replace(metadata=metadata)))
            del one, metadata

        assert [question() for question in questions if question() is not None] == []
    log.close()


def test_what_waits_is_bounded_in_bytes_too(tmp_path: Path) -> None:
    with stalled(tmp_path / "pipe") as pipe:
        log = DecisionLog("all", pipe, max_bytes=100_000)
        for number in range(1000):
            log(decision(method=f"/{number}/" + "x" * 1000))

        # At most 512 characters of a method are recorded, so each record takes more than half a kilobyte.
        assert 0 < log.waiting_bytes <= 100_000
        assert log.dropped >= 1000 - 100_000 // 512 - 1
    log.close()


def test_room_comes_back_when_lines_are_written(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog("all", str(path), max_bytes=decision().record().size)
    log(decision())
    log(decision())
    log.close()

    assert (log.waiting_bytes, log.dropped, len(lines(path))) == (0, 1, 1)


def test_after_a_full_disk_every_line_is_whole_but_one_and_those_that_are_missing_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog("all", str(path))
    with room_for(1000), told("decisions_dropped") as drops:
        for number in range(20):
            log(decision(method=f"/first/{number}"))
    for number in range(3):
        log(decision(method=f"/second/{number}"))
    log.close()
    *before, torn, first, second, third = path.read_bytes().splitlines()

    assert [json.loads(line)["method"] for line in (first, second, third)] == ["/second/0", "/second/1", "/second/2"]
    assert [json.loads(line)["method"] for line in before] == [f"/first/{number}" for number in range(len(before))]
    with pytest.raises(json.JSONDecodeError):
        json.loads(torn)
    assert log.dropped == sum(fields["count"] for fields in drops) == 20 - len(before)


def test_line_that_was_cut_short_is_ended_though_no_decision_follows(tmp_path: Path) -> None:
    """Else a line of another process would be appended to it."""
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog("all", str(path))
    with room_for(100), told("decisions_dropped"):
        log(decision())
    assert len(path.read_bytes()) == 100

    assert eventually(lambda: path.read_bytes().endswith(b"\n"))
    log.close()


def test_file_is_opened_anew_by_the_thread_that_writes(tmp_path: Path) -> None:
    """So that no line begins in one file and ends in another; the new file is created even if no decision follows."""
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog("all", str(path))
    log(decision(method="/old"))
    path.rename(tmp_path / "old.jsonl")
    log.reopen()
    log.close()

    assert path.exists()
    assert len(lines(tmp_path / "old.jsonl")) + len(lines(path)) == 1


def test_writer_that_dies_is_begun_again_and_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog("all", str(path))
    with told("thread_died") as deaths:
        for one in (decision(method="/perhaps"), _Deadly(), decision(method="/kept")):
            log(cast("Decision", one))
    log.close()
    written = [line["method"] for line in lines(path)]

    assert [(fields["thread"], fields["error"]) for fields in deaths] == [("authz-decisions", "SystemExit")]
    assert written[-1] == "/kept"
    assert log.dropped + len(written) == 3


class _Deadly:
    """A decision whose line ends the thread that writes it."""

    size = 1

    def record(self) -> Self:
        return self

    def fields(self) -> NoReturn:
        raise SystemExit
