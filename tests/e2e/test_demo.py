"""The demonstration as a newcomer runs it: it tells the truth, and leaves nothing behind."""

import io
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from authz.demo.demo import conclude
from authz.demo.partner import Answer
from authz.demo.scenes import Expected, Row
from tests import programs
from tests.interceptors.service import KINDS
from tests.programs import Program

SEEN = Expected(status="OK", org_id="org_1")


def good() -> tuple[Answer, ...]:
    return tuple(Answer(kind=kind, status="OK", org_ids=frozenset(["org_1"])) for kind in KINDS)


GOOD_HTTP = Answer(kind="HTTP", status="200", org_ids=frozenset(["org_1"]))
GOOD_ROW = Row(sent="a good token", expected=SEEN, through_envoy=good(), http=GOOD_HTTP, direct=good())


def conclusion(*rows: Row) -> tuple[int, str]:
    output = io.StringIO()
    return conclude(Console(file=output, width=200), rows), output.getvalue()


def test_rows_that_are_as_they_must_be_exit_0() -> None:
    status, text = conclusion(GOOD_ROW, GOOD_ROW)

    assert (status, text.strip()) == (0, "All 2 rows are as expected (18 calls).")


def test_words_of_a_server_are_neither_markup_nor_orders_to_a_terminal() -> None:
    answer = Answer(kind="unary-unary", status="OK", reason="[red]\x1b[2J", org_ids=frozenset(["[link=x]\u202e"]))
    _, text = conclusion(Row(sent="a forged token", expected=SEEN, through_envoy=(*good(), answer), http=GOOD_HTTP))

    assert all(line.isprintable() for line in text.splitlines())
    assert "[red]" in text
    assert "[link=x]" in text


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer(kind="unary-unary", status="UNAUTHENTICATED", reason="TOKEN_EXPIRED"), id="refused"),
        pytest.param(Answer(kind="unary-unary", status="OK", org_ids=frozenset(["org_2"])), id="other-organization"),
        pytest.param(Answer(kind="unary-unary", status="OK"), id="no-organization"),
        pytest.param(Answer(kind="unary-unary", status="OK", org_ids=frozenset(["org_1", "org_2"])), id="mixed"),
        pytest.param(Answer(kind="HTTP", status="403"), id="http-refused"),
        pytest.param(Answer(kind="HTTP", status="200", org_ids=frozenset(["org_2"])), id="http-other-organization"),
    ],
)
def test_one_wrong_answer_exits_1_and_is_named(answer: Answer) -> None:
    wrong = Row(sent="a forged token", expected=SEEN, through_envoy=(*good(), answer), http=GOOD_HTTP)
    status, text = conclusion(GOOD_ROW, wrong)

    assert status == 1
    assert "wrong: a forged token: expected" in text
    assert "1 of 2 rows are not as expected." in text


@pytest.mark.parametrize("reason", ["TOKEN_MALFORMED", ""])
def test_refusal_for_another_reason_is_wrong(reason: str) -> None:
    expired = Expected(status="UNAUTHENTICATED", reason="TOKEN_EXPIRED")
    answer = Answer(kind="unary-unary", status="UNAUTHENTICATED", reason=reason)

    assert Row(sent="expired", expected=expired, through_envoy=(answer,)).wrong == (answer,)


@pytest.mark.parametrize(
    ("status", "http"), [("PERMISSION_DENIED", "403"), ("RESOURCE_EXHAUSTED", "429")], ids=["denied", "exhausted"]
)
def test_refusal_has_its_own_status_over_http(status: str, http: str) -> None:
    refused = Expected(status=status, reason="QUOTA_EXCEEDED")

    assert refused.matches(Answer(kind="HTTP", status=http))
    assert not refused.matches(Answer(kind="HTTP", status="401"))


def processes(folder: Path) -> list[int]:
    """Return the processes that have ``folder`` for their temporary files: the demonstration and its children."""
    return list(_with_variable(f"TMPDIR={folder}".encode()))


def _with_variable(variable: bytes) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if variable in variables:
            yield int(process.name)


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Return the folder for temporary files of one demonstration; a socket needs a short path."""
    folder = tmp_path / "t"
    folder.mkdir()
    return folder


def test_demonstration_shows_every_row_and_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    done = programs.run("demo", folder=tmp_path, TMPDIR=str(temporary))
    rows = [line for line in done.stdout.splitlines() if re.search(r"  (ok|WRONG) *$", line)]
    [counted] = re.findall(r"^All (\d+) rows are as expected", done.stdout, re.MULTILINE)

    assert (done.returncode, done.stderr) == (0, "")
    assert len(rows) == int(counted) >= 35
    assert all(row.rstrip().endswith("ok") for row in rows)
    assert re.findall(r"4 (?:PERMISSION_DENIED|RESOURCE_EXHAUSTED) (\w+)", done.stdout) == [
        "insufficient_scope",
        "organization_mismatch",
        "organization_suspended",
        "quota_exceeded",
    ]
    assert re.findall(r"[18] PERMISSION_DENIED (\w+)", done.stdout) == ["organization_suspended"] * 4
    assert re.findall(r"2\d HTTP 200 .*\n.* 10 HTTP 429 ", done.stdout)
    assert re.findall(r"^authz (suspend|resume): in force in 3 of 3 ", done.stdout, re.MULTILINE) == [
        "suspend",
        "resume",
    ]
    # Of a thousand calls, whose answer Envoy repeats.
    [asked] = re.findall(r"^about (none|\d+) of them", done.stdout, re.MULTILINE)
    assert asked == "none" or int(asked) < 100
    assert re.findall(
        r"^Globex is deleted at WorkOS: \d+\.\d s later +8 UNAUTHENTICATED token_inactive +401 +same",
        done.stdout,
        re.MULTILINE,
    )
    assert re.findall(r"^the stream that Globex holds open +1 (\w+) (\w+)", done.stdout, re.MULTILINE) == [
        ("PERMISSION_DENIED", "organization_suspended"),
        ("UNAUTHENTICATED", "token_inactive"),
    ]
    assert (processes(temporary), list(temporary.iterdir())) == ([], [])


def test_kept_demonstration_can_be_played_with_until_it_is_interrupted(tmp_path: Path, temporary: Path) -> None:
    with Program("demo", "--keep", folder=tmp_path, TMPDIR=str(temporary)) as program:
        program.await_line(lambda line: "Ctrl-C ends it all." in line)
        running = processes(temporary)
        played = programs.run("-e", "-c", commands(program.text), folder=tmp_path, command=("bash",))
        for _ in range(2):
            program.send(signal.SIGINT)
        status = program.wait()

    assert len(running) >= 6
    assert played.returncode == 0, played.stderr
    assert played.stdout.startswith("allowed\n")
    assert len(re.findall(r"^\S+ +OK +org_01JYACME", played.stdout, re.MULTILINE)) == 4
    assert (status, processes(temporary), list(temporary.iterdir())) == (0, [], [])


def commands(text: str) -> str:
    """Return the commands that the demonstration printed, without those that need curl."""
    [printed] = re.findall(r"In another terminal:\n(.*)Ctrl-C ends it all", text, re.DOTALL)
    joined = re.sub(r"\\\n\s*", "", printed)
    lines = [line.strip() for line in joined.splitlines() if line.strip()]
    assert shlex.split(lines[0])[0].startswith("TOKEN=")
    assert sum(line.startswith("curl") for line in lines) == 3
    return "\n".join(line for line in lines if not line.startswith("curl"))


def test_demonstration_that_is_ended_half_way_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    with Program("demo", folder=tmp_path, TMPDIR=str(temporary)) as program:
        program.await_line(lambda line: "its own token" in line)
        program.send(signal.SIGTERM)
        status = program.wait()

    assert (status, processes(temporary), list(temporary.iterdir())) == (128 + signal.SIGTERM, [], [])
