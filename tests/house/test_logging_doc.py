"""docs/logging.md names every event of the log, with its level and its fields, as the source has them."""

import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from authz import LogSampling
from authz.judge.orders import operator
from authz.runtime import telemetry

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/logging.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| ([a-z, ]+) \| ([`\w, ]*) ?\| .+ \|$", re.MULTILINE)

# Where the source makes up the name: of what is reloaded, of an order, of a refusal, of what is served over HTTP.
MADE_UP = {
    "authz/judge/reload.py": {
        f"{what}_{how}" for what in ("policy", "shadow") for how in ("reloaded", "reload_failed")
    },
    "authz/judge/orders/operator.py": set(operator._EVENTS.values()),  # noqa: SLF001 - the other side of the comparison
    "authz/judge/telling.py": {"call_refused", "stream_ended"},
    "authz/server/operations/web.py": {"admin", "probes", "webhooks"},
}


class Event(NamedTuple):
    """An event as the source logs it: ``level`` is empty if it varies, ``has_more`` if other fields may come."""

    name: str
    level: str
    fields: frozenset[str]
    has_more: bool


def calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in {"telemetry.event", "event"}
            and len(node.args) == 2
        ):
            yield node


def names(call: ast.Call, where: str) -> set[str]:
    """Return how an event may be called; of what is reloaded, what was it and what failed are two places."""
    name = call.args[1]
    if isinstance(name, ast.Constant):
        return {str(name.value)}
    end = name.values[-1].value if isinstance(name, ast.JoinedStr) and isinstance(name.values[-1], ast.Constant) else ""
    return {each for each in MADE_UP[where] if each.endswith(str(end))}


def events() -> Iterator[Event]:
    for path in sorted([*ROOT.glob("authz/**/*.py"), *ROOT.glob("interceptors/**/*.py")]):
        where = str(path.relative_to(ROOT))
        for call in calls(path):
            level = ast.unparse(call.args[0]).removeprefix("telemetry.").lower()
            fields = frozenset(keyword.arg for keyword in call.keywords if keyword.arg)
            has_more = len(fields) < len(call.keywords)
            known = level if level in {"debug", "info", "warning", "error"} else ""
            for name in sorted(names(call, where)):
                yield Event(name, known, fields, has_more)


LOGGED = list(events())
TOLD = {name: (levels.split(", "), set(re.findall(r"\w+", fields))) for name, levels, fields in ROW.findall(TEXT)}


def test_every_event_is_told_and_no_other() -> None:
    assert len(LOGGED) > 60
    assert {event.name for event in LOGGED} == set(TOLD)
    assert list(TOLD) == sorted(TOLD)


@pytest.mark.parametrize("event", LOGGED, ids=lambda event: event.name)
def test_event_is_told_with_its_level_and_its_fields(event: Event) -> None:
    levels, fields = TOLD[event.name]

    assert event.level in levels or not event.level
    assert event.fields <= fields
    assert event.has_more or len(fields) == len(event.fields)


def test_only_this_logger_is_written_to() -> None:
    named = {
        match
        for path in ROOT.glob("authz/**/*.py")
        if "cli" not in path.parts
        for match in re.findall(r'getLogger\("?([\w.]*)', path.read_text(encoding="utf-8"))
    }

    assert named == {"authz"}


def test_the_program_writes_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    [program] = re.findall(r"```python\n(# logs\.py\n.*?)```", TEXT, re.DOTALL)
    logger = logging.getLogger("authz")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logger.level)
    exec(compile(program, "logs.py", "exec"), {})  # noqa: S102 - a program of ours
    telemetry.event(telemetry.WARNING, "jwks_fetch_failed", url="https://acme.authkit.app", error="timeout")

    written = capsys.readouterr().err
    assert '"level": "warning", "event": "jwks_fetch_failed", "url": "https://acme.authkit.app"' in written


def test_the_filter_is_the_one_that_is_told() -> None:
    [line] = re.findall(r"^logging\.getLogger.*LogSampling\((.*)\)\)$", TEXT, re.MULTILINE)

    assert vars(LogSampling())["_burst"] == 20
    assert vars(LogSampling())["_period"] == 10
    assert line == "burst=20, period=10"
