"""One page of all figures, and the picture of the documents: ratios, peers, and how costs grow."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.plots import bars, growth, stacked
from benchmarks.report import Report

ROOT = Path(__file__).parents[1]
PAGE, PICTURE = ROOT / "build/bench/index.html", ROOT / "docs/pictures/speed.svg"

_OURS = "ours on native"
_NOTE = (
    "CPU time is the server's alone, user and kernel. The figures of one part come from one run, in turn; those of "
    "several parts from different minutes, so compare ratios."
)
_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #20242f; --line: #d5d9e8 }
@media (prefers-color-scheme: dark) { :root { --ground: #16181f; --text: #e3e6ee; --line: #363c4d } }
body { background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 720px; padding: 0 1rem }
svg { display: block; height: auto; margin: 1rem 0; max-width: 100% }
table { border-collapse: collapse; font-size: 13px }
td { border-bottom: 1px solid var(--line); padding: 2px 12px 2px 0 }
td:last-child { font-variant-numeric: tabular-nums; text-align: right }
"""


def page(report: Report) -> str:
    """Return the page, which needs no network: pictures first, and every figure below them.

    Args:
        report: what was measured; a part without figures is named as such.

    """
    parts = [name for name, value in report.items() if isinstance(value, dict) and name not in {"versions", "measured"}]
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    body = [
        "<h1>What a check costs</h1>",
        f"<p>Last on {escape(report['machine'])}; Python {escape(report['python'])}; {escape(versions)}.</p>",
        f"<p>{_NOTE}</p>",
    ]
    for title, draw in _CHARTS.items():
        body.append(drawn if (drawn := draw(report)) else f"<p>{escape(title)}: not measured.</p>")
    body += [_part(name, report) for name in parts]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>What a check costs</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{chr(10).join(body)}\n</body></html>\n"
    )


def picture(report: Report) -> str:
    """Return the picture of the documents: the charts of those parts that have figures."""
    charts = [draw(report) for draw in list(_CHARTS.values())[:3]]
    return stacked([one for one in charts if one])


def write(report: Report) -> None:
    """Write the page."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(report), encoding="utf-8")


def draw(report: Report) -> None:
    """Draw the picture of the documents."""
    PICTURE.write_text(picture(report), encoding="utf-8")


def _of(report: Mapping[str, Any], *names: str) -> Any:
    """Return what a report has below these names, or nothing."""
    found: Any = report
    for name in names:
        found = found.get(name, {}) if isinstance(found, dict) else {}
    return found


def _bars(report: Report, part: str, title: str, values: Mapping[str, Any], *, unit: str, ours: str = "") -> str:
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return bars(f"{title}, {_when(report, part)}", numbers, unit=unit, ours=ours) if numbers else ""


def _when(report: Report, part: str) -> str:
    return str(_of(report, "measured", part, "on") or "earlier")


def _peers(title: str, figure: str) -> Callable[[Report], str]:
    def draw(report: Report) -> str:
        servers = _of(report, "peers", "32 streams and one")
        values = {name: _of(row, figure) for name, row in servers.items()}
        return _bars(report, "peers", title, values, unit="CPU µs per check", ours=_OURS)

    return draw


def _libraries(report: Report) -> str:
    return _bars(
        report, "tokens", "Verify RS256", _of(report, "tokens", "RS256", "cpu_us"), unit="CPU µs", ours="authz"
    )


def _engines(report: Report) -> str:
    servers = _of(report, "ext_authz", "direct")
    values = {name: _of(row, "32 streams", "CPU us") for name, row in servers.items()}
    return _bars(report, "ext_authz", "A check, by engine", values, unit="CPU µs", ours=_OURS)


def _instructions(report: Report) -> str:
    counts = _of(report, "counts", "thousand instructions")
    return _bars(report, "counts", "Instructions, which do not drift", counts, unit="thousands per call", ours=_OURS)


def _endings(report: Report) -> str:
    held = {
        f"{streams}, {order}": _of(row, "giver held ms")
        for streams, orders in _of(report, "endings").items()
        for order, row in orders.items()
    }
    title = "Streams of one organization are ended: how long that holds the giver"
    return _bars(report, "endings", title, held, unit="ms")


def _grows(part: str, forms: Mapping[str, str], title: str, figure: str, across: str) -> Callable[[Report], str]:
    def draw(report: Report) -> str:
        lines = {name: list(_points(_of(report, part, *form.split(" > ")), figure)) for form, name in forms.items()}
        return growth(f"{title}, {_when(report, part)}", lines, across=across, up=figure) if any(lines.values()) else ""

    return draw


def _points(rows: Mapping[str, Any], figure: str) -> Iterator[tuple[float, float]]:
    for size, row in rows.items():
        value = _of(row, *figure.split(" > "))
        if isinstance(value, int | float):
            yield float(size.replace(",", "")), float(value)


_RULES = {"rules, JSON": "rules", "rules by a header's value, on one method": "values of a header"}
_METHODS = {"methods of a descriptor set": "methods that say who may call"}
_LOG = {"megabytes of a decision log, replayed": "500 rules"}
_DRAWN = {f"{memory}, {kind}": f"{memory}, {kind}" for kind in ("uniform", "Zipf") for memory in ("32 MiB", "512 MiB")}
_STREAMS = {
    f"{kind} > {server}": f"{name}, {server}"
    for kind, name in (("sync", "grpc"), ("aio", "grpc.aio"))
    for server in ("ours", "only wraps", "bare")
}
_FORMS = {"lines": "lines", "json": "JSON", "yaml": "YAML"}
_CHARTS: dict[str, Callable[[Report], str]] = {
    "A remembered token": _peers("A remembered token", "CPU us"),
    "A token never seen": _peers("A token never seen", "unseen CPU us"),
    "Verify RS256": _libraries,
    "A check, by engine": _engines,
    "Instructions": _instructions,
    "Streams that are ended": _endings,
    "Rules: a decision": _grows("rules", _RULES, "A decision by a policy", "decision, us", "rules"),
    "Rules: loading": _grows("rules", _RULES, "A policy is loaded", "load, s", "rules"),
    "Rules: memory": _grows("rules", _RULES, "Memory of a policy", "memory, MB", "rules"),
    "Methods: loading": _grows("rules", _METHODS, "A descriptor set is loaded", "load, s", "methods"),
    "Methods: memory": _grows("rules", _METHODS, "Memory of a descriptor set", "memory, MB", "methods"),
    "A decision log: seconds": _grows("rules", _LOG, "authz policy diff replays a log", "s", "MB"),
    "A decision log: memory": _grows("rules", _LOG, "Memory of a replay", "memory, MB", "MB"),
    "Distinct tokens: a check": _grows("distinct", _DRAWN, "A check, of so many tokens", "CPU us", "tokens"),
    "Distinct tokens: remembered": _grows("distinct", _DRAWN, "Share that is remembered", "remembered", "tokens"),
    "Open streams: memory": _grows("streams", _STREAMS, "Memory of open streams that wait", "MB", "streams"),
    "Organizations: reading": _grows("organizations", _FORMS, "Organizations are read", "read, cpu s", "organizations"),
    "Organizations: memory": _grows("organizations", _FORMS, "Their memory", "resident, MB", "organizations"),
    "Organizations: pauses": _grows(
        "organizations", _FORMS, "The longest step of a reload", "longest step of a reload, cpu ms", "organizations"
    ),
}


def _part(name: str, report: Report) -> str:
    seconds = _of(report, "measured", name, "seconds")
    when = f" ({_when(report, name)}{f', {seconds} s' if seconds else ''})"
    rows = "".join(f"<tr><td>{escape(path)}</td><td>{escape(value)}</td></tr>" for path, value in _flat(report[name]))
    return f"<h2>{escape(name + when)}</h2>\n<table>{rows}</table>"


def _flat(value: Any, path: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _flat(each, (*path, str(name)))
    else:
        yield " / ".join(path), str(value)
