"""``authz usage``, as a person or a script uses it."""

import csv
import gzip
import io
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from authz import cli
from authz.decisions.usage import DAY, HOUR, Row
from authz.judge.orders.operator import Operator
from authz.judge.orders.standing import Standing
from authz.judge.streams import OpenStreams
from authz.runtime.clock import SYSTEM_CLOCK
from authz.runtime.text.printable import printable
from authz.server.workos.applications import Application
from authz.server.workos.shared_register import SharedRegister
from authz.store.connection import Store
from authz.store.usage.counts import UsageStore
from tests import programs
from tests.store.engines import Engine

pytestmark = pytest.mark.usefixtures("no_settings")

Run = Callable[..., tuple[int, str, str]]


def line(method: str, organization: str = "org_a", verdict: str = "allowed", time: str = "2026-11-28T22:41:05Z") -> str:
    told = {"event": "decision", "door": "envoy", "client": "client_1", "time": time}
    return json.dumps({**told, "method": method, "organization": organization, "verdict": verdict}) + "\n"


LOG = [
    *[line("/ledger/List")] * 3,
    line("/ledger/List", "org_b", "denied"),
    line("/ledger/Add", "org_b", time="2026-11-28T23:00:00Z"),
    line("/x\x1b[2J", "", "denied"),
    "torn\n",
    "\n",
    line("/ledger/List").replace('"decision"', '"stream_ended"'),
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs ``authz usage`` where ``log.jsonl`` is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.jsonl").write_text("".join(LOG), encoding="utf-8")

    def run(*arguments: str) -> tuple[int, str, str]:
        status = cli.run(["usage", *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine("valkey") as engine:
        yield engine


NOTE = "note: 1 lines of 'log.jsonl' are not decisions\n"


def test_a_log_is_counted_by_organization(run: Run):
    assert run("--decisions", "log.jsonl") == (
        0,
        """\
organization  calls  allowed  refused
org_a             3        3        0
org_b             2        1        1
(none)            1        0        1
6 calls
""",
        NOTE,
    )


def test_the_groups_are_those_asked_for_and_no_text_moves_the_cursor(run: Run):
    by = ("--by", "hour,method,verdict", "--decisions", "log.jsonl")
    assert run(*by, "--until", "2026-11-28T23:30:00Z") == (
        0,
        """\
hour            method        verdict  calls
2026-11-28T22Z  /ledger/List  allowed      3
2026-11-28T22Z  /ledger/List  denied       1
2026-11-28T22Z  /x\\x1b[2J     denied       1
2026-11-28T23Z  /ledger/Add   allowed      1
6 calls until 2026-11-28T23:30:00Z
""",
        NOTE,
    )
    assert run(*by, "--organization", "org_b", "--since", "2026-11-28T22:59:00Z")[1].splitlines()[1:] == [
        "2026-11-28T23Z  /ledger/Add  allowed      1",
        "1 calls since 2026-11-28T22:59:00Z",
    ]


def test_csv_and_json_hold_the_same(run: Run):
    by = ("--by", "organization", "--by", "method", "--decisions", "log.jsonl")
    status, text, noted = run(*by, "--csv")
    lines = list(csv.DictReader(io.StringIO(text)))

    assert (status, noted) == (0, NOTE)
    assert "\x1b" not in text
    assert lines[0] == {"organization": "org_a", "method": "/ledger/List", "calls": "3", "allowed": "3", "refused": "0"}
    status, text, noted = run(*by, "--json")
    data = json.loads(text)
    assert (status, noted, data["calls"], data["since"], data["until"]) == (0, "", 6, None, None)
    assert data["notes"] == ["1 lines of 'log.jsonl' are not decisions"]
    shown = [{name: printable(str(value)) for name, value in each.items()} for each in data["usage"]]
    assert shown == lines


def test_several_logs_are_added_up_also_packed_ones_and_standard_input(run: Run, tmp_path: Path):
    (tmp_path / "old.jsonl.gz").write_bytes(gzip.compress(LOG[0].encode()))
    logs = ("--decisions", "log.jsonl", "--decisions", "old.jsonl.gz")

    assert run(*logs)[1].splitlines()[-1] == "7 calls"
    from_input = programs.run("usage", *logs, "--decisions", "-", folder=tmp_path, stdin=LOG[0] * 2)
    assert from_input.stdout.splitlines()[-1] == "9 calls"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--decisions", "nowhere"], "decisions: 'nowhere' cannot be read (No such file or directory)"),
        (["--decisions", "no.jsonl"], "decisions: no line of 'no.jsonl' is a decision; give the log of --decision-log"),
        (["--decisions", "no.gz"], "decisions: 'no.gz' cannot be read (it is damaged, or not packed by gzip)"),
        (["--decisions", "cut.gz"], "decisions: 'cut.gz' cannot be read (it is damaged, or not packed by gzip)"),
        (["--by", "tenant"], "by: 'tenant' is none of organization, client, method, verdict, door, minute, hour, day"),
        (["--since", "1h", "--until", "2h"], "since: not before until, so nothing would be counted"),
        (["--csv", "--json"], "csv, json: give one of them"),
    ],
)
def test_what_cannot_be_counted_is_one_line(run: Run, tmp_path: Path, arguments: list[str], said: str):
    (tmp_path / "no.jsonl").write_text("{}\n", encoding="utf-8")
    (tmp_path / "no.gz").write_text("{}\n", encoding="utf-8")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(LOG[0].encode())[:-12])

    assert run(*arguments) == (2, "", f"authz: {said}\n")


def test_a_log_says_what_applications_are_called(run: Run, tmp_path: Path):
    named = {**json.loads(line("/a")), "client_name": "Tills \x1b[2J"}
    (tmp_path / "named.jsonl").write_text(f"{line('/a', 'org_b')}{json.dumps(named)}\n", encoding="utf-8")

    assert run("--by", "client", "--decisions", "named.jsonl")[1].splitlines() == [
        "client    client_name    calls  allowed  refused",
        r"client_1  Tills \x1b[2J      2        2        0",
        "2 calls",
    ]
    assert json.loads(run("--by", "client", "--decisions", "named.jsonl", "--json")[1])["usage"] == [
        {"client": "client_1", "client_name": "Tills \x1b[2J", "calls": 2, "allowed": 2, "refused": 0}
    ]


# ---- From the store ----


def test_the_store_knows_what_applications_are_called(run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch):
    store, hour = engine.store(), int(time.time()) // HOUR * HOUR
    for client in ("client_1", "client_2"):
        UsageStore(store).add(client, 1, {Row(hour, "org_a", client, "/a", "allowed", "envoy"): 2})
    register_of(store).keep([], {"client_1": Application("client_1", "conn_app_1", "org_a", "Tills")})
    store.close()
    monkeypatch.setenv("AUTHZ_STORE", engine.url)

    assert run("--by", "client")[1].splitlines()[:3] == [
        "client    client_name  calls  allowed  refused",
        "client_1  Tills            2        2        0",
        "client_2  (none)           2        2        0",
    ]


def register_of(store: Store) -> SharedRegister:
    return SharedRegister(store, Operator(Standing(), OpenStreams(), clock=SYSTEM_CLOCK))


def test_the_store_is_asked_for_the_last_day(run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch):
    hour = int(time.time()) // HOUR * HOUR
    row = Row(hour, "org_a", "client_1", "/ledger/List", "allowed", "envoy")
    usage = UsageStore(engine.store())
    usage.add("one", 1, {row: 3, row._replace(organization="org_b", verdict="denied"): 2})
    usage.add("one", 2, {row._replace(time=hour - 3 * DAY): 9})

    status, text, noted = run("--by", "organization,method", "--store", engine.url)
    assert (status, noted) == (0, "")
    assert (
        text
        == f"""\
organization  method        calls  allowed  refused
org_a         /ledger/List      3        3        0
org_b         /ledger/List      2        0        2
5 calls since {datetime.fromtimestamp(hour - DAY, UTC):%Y-%m-%dT%H:%M:%SZ}
"""
    )
    monkeypatch.setenv("AUTHZ_STORE", engine.url)
    assert json.loads(run("--since", "7d", "--json")[1])["calls"] == 14
    assert run("--since", "7d", "--by", "hour") == (
        2,
        "",
        "authz: by: the store has single hours of the last 48 only; take day, or a later since\n",
    )


def test_all_days_are_found_that_replicas_have_kept(run: Run, engine: Engine):
    row = Row(int(time.time()) - 60 * DAY, "org_a", "client_1", "/ledger/List", "allowed", "envoy")
    UsageStore(engine.store(), days=90).add("one", 1, {row: 3})

    assert json.loads(run("--since", "70d", "--json", "--store", engine.url)[1])["calls"] == 3


def test_without_a_store_and_a_log_there_is_nothing_to_count(run: Run):
    status, text, said = run()

    assert (status, text) == (2, "")
    assert said.startswith("authz: store: missing; set AUTHZ_STORE or --store")


def test_a_store_that_does_not_answer_is_one_line(run: Run, tmp_path: Path):
    status, text, said = run("--store", f"unix:{tmp_path}/nothing")

    assert (status, text, said.count("\n")) == (3, "", 1)
    assert "cannot be reached" in said
