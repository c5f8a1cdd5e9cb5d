"""The tables of docs/performance.md, written anew from the figures that are kept."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.report import Report

DOCUMENT = Path(__file__).parents[1] / "docs/performance.md"

_COLUMNS = {
    "CPU µs": "CPU us",
    "p50 ms": "p50 ms",
    "p99 ms": "p99 ms",
    "one stream: p50 ms": "one stream, p50 ms",
    "p99 ms ": "one stream, p99 ms",
    "never seen: CPU µs": "unseen CPU us",
    "above a remembered one": "unseen, above remembered us",
}


def write(report: Report) -> None:
    """Write the tables anew."""
    DOCUMENT.write_text(renewed(DOCUMENT.read_text(encoding="utf-8"), report), encoding="utf-8")


def renewed(text: str, report: Report) -> str:
    """Return the document with its tables made of these figures."""
    for name, table in _TABLES.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if begin:
            text = f"{before}{begin}\n{table(report)}\n{end}{after}"
    return text


def _peers(report: Report) -> str:
    part = report.get("peers", {})
    servers: Mapping[str, Any] = part.get("32 streams and one", {})
    ratios, unseen = (part.get(f"ours / theirs, {kind}", {}) for kind in ("remembered", "never seen"))
    head = ["server", *map(str.strip, _COLUMNS), "ours / theirs", "ours / theirs, never seen"]
    rows = [
        [
            name,
            *(_cell(row.get(figure)) for figure in _COLUMNS.values()),
            _cell(ratios.get(name)),
            _cell(unseen.get(name)),
        ]
        for name, row in servers.items()
    ]
    return f"{_table(head, rows)}\n{_source(report, 'peers')}"


def _counts(report: Report) -> str:
    part = report.get("counts", {})
    rows = [[name, _cell(number)] for name, number in part.get("thousand instructions", {}).items()]
    return f"{_table(['check', 'thousand instructions'], rows)}\n{_source(report, 'counts')}"


def _distinct(report: Report) -> str:
    part = report.get("distinct", {})
    columns = {name: rows for name, rows in part.items() if not name.startswith("bytes")}
    numbers = list(next(iter(columns.values()), {}))
    head = ["tokens", *(f"{name}: {what}" for name in columns for what in ("CPU µs", "remembered"))]
    rows = [
        [number, *(_cell(rows[number][what]) for rows in columns.values() for what in ("CPU us", "remembered"))]
        for number in numbers
    ]
    return f"{_table(head, rows)}\n{_source(report, 'distinct')}"


def _streams(report: Report) -> str:
    names = {"aio": "grpc.aio", "sync": "grpc"}
    rows: list[list[str]] = []
    part = report.get("streams", {})
    numbers = sorted({number for servers in part.values() for number in servers["bare"]}, key=_size)
    for kind, servers in part.items():
        above = servers["bytes per stream above a bare server"]
        for name in ("bare", "only wraps", "ours"):
            cells = [_cell(servers[name].get(number, {}).get("bytes per stream")) for number in numbers]
            rows.append([f"{names[kind]}, {name}", *cells, _cell([None, *above.get(name, {}).values()][-1])])
    head = ["bytes per stream", *(f"{number} open" for number in numbers), "above the bare server"]
    return f"{_table(head, rows)}\n{_source(report, 'streams')}"


def _size(number: str) -> int:
    return int(number.replace(",", ""))


def _cell(value: object) -> str:
    return "none" if value is None else str(value)


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))


def _source(report: Report, part: str) -> str:
    measured = report.get("measured", {}).get(part, {}).get("on", "an earlier day")
    return f"Measured on {measured}: {report['machine']}, Python {report['python']}.\n"


_TABLES: Mapping[str, Callable[[Report], str]] = {
    "peers": _peers,
    "counts": _counts,
    "distinct": _distinct,
    "streams": _streams,
}
