"""Line charts as SVG, made of nothing but text."""

from collections.abc import Mapping, Sequence
from html import escape

Line = Sequence[tuple[float, float]]
"""Points, from left to right."""

WIDTH, HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 28, 28
_COLOURS = ("#0b6e99", "#c4512d", "#3b7d3b", "#7a4fa3", "#8a6d1a", "#555555")
_TICKS = 4
_THOUSAND, _HUNDRED = 1000, 100


def chart(title: str, lines: Mapping[str, Line], *, across: str, up: str) -> str:
    """Return a chart as an ``svg`` element, whose upward axis begins at 0.

    Args:
        title: what it shows.
        lines: by name; each has a colour of its own, and empty ones are left out.
        across: what is written at the axis from left to right, with the unit.
        up: the same of the other axis.

    """
    drawn = {name: line for name, line in lines.items() if line}
    points = [point for line in drawn.values() for point in line]
    most_across, most_up = (max((point[axis] for point in points), default=0) or 1 for axis in (0, 1))

    def place(x: float, y: float) -> tuple[float, float]:
        wide, high = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
        return round(_LEFT + x / most_across * wide, 1), round(HEIGHT - _BOTTOM - y / most_up * high, 1)

    parts = [_text(_LEFT, 16, f"{title} ({up})", "start")]
    for tick in range(_TICKS + 1):
        x, y = place(most_across * tick / _TICKS, most_up * tick / _TICKS)
        parts.append(f'<path d="M{_LEFT} {y}H{WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(_text(_LEFT - 6, y + 4, _number(most_up * tick / _TICKS), "end"))
        unit = f" {across}" if tick == _TICKS else ""
        parts.append(_text(x, HEIGHT - 10, _number(most_across * tick / _TICKS) + unit, "end" if unit else "middle"))
    for number, (name, line) in enumerate(drawn.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x},{y}" for x, y in (place(*point) for point in line))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(_text(WIDTH - _RIGHT, 16 + 13 * number, name, "end", colour))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="11">{"".join(parts)}</svg>'
    )


def stacked(charts: Sequence[str]) -> str:
    """Return one picture of several charts, one below the other."""
    placed = "".join(f'<g transform="translate(0 {HEIGHT * place})">{one}</g>' for place, one in enumerate(charts))
    height = HEIGHT * len(charts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
        f'<rect width="100%" height="100%" fill="#fff"/>{placed}</svg>\n'
    )


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#333") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _number(value: float) -> str:
    if value >= _THOUSAND:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= _HUNDRED or value == int(value) else f"{value:.3g}"
