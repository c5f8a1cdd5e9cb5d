"""How the soak test judges a run: what goes up is found, and what only goes up and down is not."""

import random
from collections import Counter
from xml.etree import ElementTree as ET

import pytest

from benchmarks.plots import chart, stacked
from benchmarks.soak import faults
from benchmarks.trend import Tolerance, goes_up, rise

TOLERANCE = Tolerance(0.05, 1.0)


def line(*values: float) -> list[tuple[float, float]]:
    return [(float(place), value) for place, value in enumerate(values)]


def test_rise_is_that_of_the_trend() -> None:
    assert rise(line(*range(0, 50, 5))) == 45
    assert rise(line(7, 7, 7, 7)) == 0
    assert rise(line(1)) == 0


def test_single_outliers_are_no_trend() -> None:
    values = [100.0] * 30
    values[3], values[28], values[29] = 10.0, 500.0, 900.0

    assert not goes_up(line(*values), TOLERANCE)


def test_leak_is_found_beneath_noise() -> None:
    noise = random.Random(1)  # noqa: S311 - no secret
    steady = line(*(100 + noise.uniform(-4, 4) for _ in range(60)))
    leaking = [(x, y + x / 4) for x, y in steady]

    assert [goes_up(each, TOLERANCE) for each in (steady, leaking)] == [False, True]


def run(**rising: float) -> list[dict[str, object]]:
    """Return samples in which some figures rise by so much each time, after a steep warm-up."""

    def held(number: int) -> dict[str, float]:
        warm = min(number, 10) * 5
        figures = {"MiB": 100.0 + warm, "descriptors": 50.0, "threads": 20.0}
        return {name: value + rising.get(name, 0) * number for name, value in figures.items()}

    waits = {"p50 ms": 1.0}
    return [
        {"s": number, "calls": 10, **waits, "p99 ms": 5.0 + rising.get("p99", 0) * number, "worker 0": held(number)}
        for number in range(60)
    ]


@pytest.mark.parametrize("figure", ["MiB", "descriptors", "threads", "p99"])
def test_whatever_goes_up_after_the_warm_up_is_a_fault(figure: str) -> None:
    answers = Counter(right=1)

    assert faults(run(), answers) == []
    assert len(faults(run(**{figure: 1.0}), answers)) == 1


def test_wrong_answer_is_a_fault_and_so_is_none_at_all() -> None:
    assert len(faults(run(), Counter({"right": 9, "wrong: 16 for 0": 1}))) == 1
    assert len(faults(run(), Counter())) == 1


def test_picture_shows_each_line_and_no_markup_of_a_name() -> None:
    lines = {"a<b": line(1, 2, 3), "none": [], "c": line(0, 0)}
    picture = stacked([chart("one & all", lines, across="s", up="MiB")])
    names = [element.text for element in ET.fromstring(picture).iter() if element.text]  # noqa: S314 - ours

    assert picture.count("<polyline") == 2
    assert {"a<b", "c", "one & all (MiB)"} <= set(names)
