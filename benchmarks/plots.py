"""Charts as SVG, made of nothing but text: lines, growth on logarithmic axes, and bars."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from math import ceil, floor, log10

Line = Sequence[tuple[float, float]]
"""Points, from left to right."""

WIDTH, HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 28, 28
_WIDE, _HIGH = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
# Each can be told from white and from a dark ground.
_COLOURS = ("#1a80b0", "#d0602f", "#43914a", "#9063c0", "#a8821a", "#808080")
_TICKS = 4
_THOUSAND, _HUNDRED = 1000, 100
_BAR, _NAMES, _VALUES = 22, 210, 64
"""The height of a bar, and the widths left for its name and its value."""


def chart(title: str, lines: Mapping[str, Line], *, across: str, up: str) -> str:
    """Return a chart as an ``svg`` element, whose upward axis begins at 0.

    Args:
        title: what it shows.
        lines: by name; each has a colour of its own, and empty ones are left out.
        across: what is written at the axis from left to right, with the unit.
        up: the same of the other axis.

    """
    points = [point for line in lines.values() for point in line]
    most_across, most_up = (max((point[axis] for point in points), default=0) or 1 for axis in (0, 1))

    def place(x: float, y: float) -> tuple[float, float]:
        return _placed(x / most_across, y / most_up)

    ticks = [(most_across * tick / _TICKS, most_up * tick / _TICKS) for tick in range(_TICKS + 1)]
    axes = _axes([x for x, _ in ticks], [y for _, y in ticks], place, across)
    return _svg(HEIGHT, [_text(_LEFT, 16, f"{title} ({up})", "start"), *axes, *_lines(lines, place)])


def growth(title: str, lines: Mapping[str, Line], *, across: str, up: str) -> str:
    """Return a chart with logarithmic axes, in which what grows as the work does goes up by 45 degrees or so.

    Args:
        title: what it shows.
        lines: as for :func:`chart`, with numbers above 0; other points are left out.
        across: as for :func:`chart`.
        up: as for :func:`chart`.

    """
    drawn = {name: [(x, y) for x, y in line if x > 0 and y > 0] for name, line in lines.items()}
    points = [point for line in drawn.values() for point in line]
    decades = [_decades([point[axis] for point in points]) for axis in (0, 1)]

    def place(x: float, y: float) -> tuple[float, float]:
        shares = ((log10(value) - low) / (high - low) for value, (low, high) in zip((x, y), decades, strict=True))
        return _placed(*shares)

    xs, ys = ([10.0**power for power in range(low, high + 1)] for low, high in decades)
    axes = _axes(xs, ys, place, across)
    return _svg(HEIGHT, [_text(_LEFT, 16, f"{title} ({up})", "start"), *axes, *_lines(drawn, place)])


def bars(title: str, values: Mapping[str, float], *, unit: str, ours: str = "") -> str:
    """Return a chart of lying bars, from 0.

    Args:
        title: what it shows.
        values: by name, from above.
        unit: of the values.
        ours: the name of the bar that stands out.

    """
    most, parts = max(values.values(), default=0) or 1, [_text(0, 16, f"{title} ({unit})", "start")]
    for number, (name, value) in enumerate(values.items()):
        y, colour = _TOP + _BAR * number, _COLOURS[0 if name == ours else -1]
        wide = round(value / most * (WIDTH - _NAMES - _VALUES), 1)
        parts.append(_text(_NAMES - 8, y + 13, name, "end"))
        parts.append(f'<rect x="{_NAMES}" y="{y}" width="{wide}" height="{_BAR - 6}" fill="{colour}"/>')
        parts.append(_text(_NAMES + wide + 6, y + 13, _number(value), "start"))
    return _svg(_TOP + _BAR * len(values) + 6, parts)


def stacked(charts: Sequence[str]) -> str:
    """Return one picture of several charts, one below the other, for light and dark grounds."""
    placed, height = [], 0
    for one in charts:
        placed.append(f'<g transform="translate(0 {height})">{one}</g>')
        height += int(one.partition(' height="')[2].partition('"')[0])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
        "<style>svg { color: #20242f } .ground { fill: #fff }"
        "@media (prefers-color-scheme: dark) { svg { color: #e3e6ee } .ground { fill: #16181f } }</style>"
        f'<rect class="ground" width="100%" height="100%"/>{"".join(placed)}</svg>\n'
    )


def _svg(height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="11">{"".join(parts)}</svg>'
    )


def _placed(right: float, up: float) -> tuple[float, float]:
    return round(_LEFT + right * _WIDE, 1), round(HEIGHT - _BOTTOM - up * _HIGH, 1)


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = (floor(log10(min(values))), ceil(log10(max(values)))) if values else (0, 1)
    return low, max(high, low + 1)


def _axes(
    xs: Sequence[float], ys: Sequence[float], place: Callable[[float, float], tuple[float, float]], across: str
) -> Iterator[str]:
    for y in ys:
        at = place(xs[0], y)[1]
        yield f'<path d="M{_LEFT} {at}H{WIDTH - _RIGHT}" stroke="currentColor" stroke-opacity=".18"/>'
        yield _text(_LEFT - 6, at + 4, _number(y), "end")
    for x in xs:
        unit = f" {across}" if x == xs[-1] else ""
        yield _text(place(x, ys[0])[0], HEIGHT - 10, _number(x) + unit, "end" if unit else "middle")


def _lines(lines: Mapping[str, Line], place: Callable[[float, float], tuple[float, float]]) -> Iterator[str]:
    drawn = {name: line for name, line in lines.items() if line}
    for number, (name, line) in enumerate(drawn.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x},{y}" for x, y in (place(*point) for point in line))
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        yield _text(WIDTH - _RIGHT, 16 + 13 * number, name, "end", colour)


def _text(x: float, y: float, text: str, anchor: str, colour: str = "currentColor") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _number(value: float) -> str:
    if value >= _THOUSAND:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= _HUNDRED or value == int(value) else f"{value:.3g}"
