"""``authz usage``."""

import csv
import io
import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from authz.cli.app import remark, say, write
from authz.cli.decision_logs import opened
from authz.cli.orders.fleet import StoreFlags, store_of
from authz.cli.times import seconds_of, shown, time_of
from authz.decisions.reading import decisions_in
from authz.decisions.usage import DAY, Row
from authz.decisions.usage_report import Query, Report, columns_of, logged_row
from authz.errors import ConfigError
from authz.runtime.text.printable import printable

_EMPTY = "(none)"


def usage(
    *,
    by: list[str] | None = None,
    since: str | None = None,
    until: str | None = None,
    organization: str | None = None,
    flags: StoreFlags = None,
    decisions: Annotated[list[Path] | None, Parameter(allow_leading_hyphen=True)] = None,
    as_csv: Annotated[bool, Parameter(name="--csv")] = False,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Print how much each organization uses, counted in groups; from the store that replicas share, or decision logs.

    Parameters
    ----------
    by
        By what: organization, client, method, verdict, door, minute, hour or day (UTC); several with commas between
        them. By default by organization.
    since
        Count decisions from this time on: how long ago, such as 24h or 7d, or 2027-01-31T18:00:00Z, or seconds since
        1970; from the store in whole hours, or whole days if it is long ago. By default 24h, and of a log all.
    until
        Count decisions before this time, written likewise.
    organization
        Count only calls of this organization.
    decisions
        A decision log, instead of the store: JSON lines as `authz serve --decision-log all` writes them, also as .gz;
        - is standard input; may be repeated.
    as_csv
        Print CSV.
    as_json
        Print one JSON object.

    """
    if as_csv and as_json:
        raise ConfigError("csv, json: give one of them")
    now = time.time()
    columns = columns_of([name.strip() for given in by or ["organization"] for name in given.split(",")])
    begin = _time("since", since, now, 0.0 if decisions else now - DAY)
    query = Query(columns, begin, _time("until", until, now, math.inf), organization)
    if query.since >= query.until:
        raise ConfigError("since: not before until, so nothing would be counted")
    report, notes = _of_logs(query, decisions) if decisions else (_of_store(query, now, flags), [])
    if as_json:
        write(json.dumps({**_data(report), "notes": notes}))
        return
    if as_csv:
        write(_csv(report))
    else:
        say(*_table(report), _total(report))
    remark(*(f"note: {note}" for note in notes))


def _of_store(query: Query, now: float, flags: StoreFlags) -> Report:
    with store_of(flags) as store:
        from authz.server.workos.shared_register import names_in  # noqa: PLC0415 - the extra's
        from authz.store.usage.counts import MAX_DAYS, UsageStore  # noqa: PLC0415 - the extra's

        # For how long replicas have it kept is set where they run.
        report = UsageStore(store, days=MAX_DAYS).read(query, now)
        report.client_names = names_in(store, report.clients)
        return report


def _of_logs(query: Query, logs: Iterable[Path]) -> tuple[Report, list[str]]:
    """Count what the logs hold; return as well what is to be said about them."""
    report, notes = Report(query), []

    def read(data: Any) -> Row:
        row, name = logged_row(data), data.get("client_name")
        if isinstance(name, str) and name:
            report.client_names[row.client] = name
        return row

    for path in logs:
        readable = unreadable = 0
        with opened(path) as log:
            for row in decisions_in(log, read):
                if row is None:
                    unreadable += 1
                else:
                    readable += 1
                    report.add(row, 1)
        if unreadable and not readable:
            raise ConfigError(f"decisions: no line of {str(path)!a} is a decision; give the log of --decision-log")
        if unreadable:
            notes.append(f"{unreadable} lines of {str(path)!a} are not decisions")
    return report, notes


def _csv(report: Report) -> str:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(report.columns)
    # A caller may have put control codes for a terminal into the name of a method.
    lines.writerows([printable(str(cell)) for cell in line] for line in report.lines())
    return text.getvalue()


def _data(report: Report) -> dict[str, Any]:
    since, until = report.query.since, report.query.until
    return {
        "since": shown(since) if since else None,
        "until": None if math.isinf(until) else shown(until),
        "calls": report.calls,
        "usage": [dict(zip(report.columns, line, strict=True)) for line in report.lines()],
    }


def _table(report: Report) -> list[str]:
    """Return lines in columns, names to the left and counts to the right."""
    table = [report.columns, *([printable(str(cell)) or _EMPTY for cell in line] for line in report.lines())]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    names = len(report.group_columns)
    return [
        "  ".join(
            cell.ljust(width) if index < names else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    ]


def _total(report: Report) -> str:
    since, until = report.query.since, report.query.until
    begin = f" since {shown(since)}" if since else ""
    end = "" if math.isinf(until) else f" until {shown(until)}"
    return f"{report.calls} calls{begin}{end}"


def _time(name: str, text: str | None, now: float, default: float) -> float:
    if text is None:
        return default
    seconds = seconds_of(text)
    return time_of(name, text, now) if seconds is None else now - seconds
