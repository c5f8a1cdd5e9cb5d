"""The page of figures needs no network, shows what was measured and when, and names what was not."""

import copy
import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks import document, page, report
from benchmarks.plots import bars, growth

REPORT: dict[str, Any] = {
    "python": "3.11.7",
    "machine": "Some <processor>, 2 cores",
    "versions": {"grpcio": "1.80"},
    "measured": {"peers": {"on": "2026-01-02", "seconds": 71.5}},
    "peers": {
        "32 streams and one": {
            "ours on native": {"CPU us": 40.0, "unseen CPU us": 100.0},
            "mine & yours": {"CPU us": 80.0},
        },
        "left out": {"Go with a cache": "go is not installed"},
    },
    "rules": {"rules, JSON": {"500": {"decision, us": 2.0}, "50000": {"decision, us": 2.5}}},
    "distinct": {
        "32 MiB, Zipf": {
            "1,000": {"CPU us": 12.0, "remembered": 1.0},
            "50,000": {"CPU us": 53.3, "remembered": 0.82},
        },
        "bytes of a remembered token": {"of one application": 1006},
    },
    "streams": {
        "aio": {
            "bare": {"100": {"bytes per stream": 24821, "MB": 2.4}, "1,000": {"bytes per stream": 24772, "MB": 23.6}},
            "only wraps": {"100": {"bytes per stream": 26000}, "1,000": {"bytes per stream": 27152}},
            "ours": {"100": {"bytes per stream": 28000}, "1,000": {"bytes per stream": 28921}},
            "bytes per stream above a bare server": {
                "only wraps": {"100": 1179, "1,000": 2380},
                "ours": {"100": 3179, "1,000": 4149},
            },
        }
    },
}


def places(svg: str) -> list[tuple[float, float]]:
    line = re.search(r'<polyline points="([^"]*)"', svg)
    assert line is not None
    return [tuple(map(float, point.split(","))) for point in line[1].split()]


def test_page_asks_nothing_of_a_network() -> None:
    text = page.page(REPORT).replace('xmlns="http://www.w3.org/2000/svg"', "")

    assert re.findall(r"(?i)https?:|src=|href=|url\(|@import|<script", text) == []


def test_page_shows_what_was_measured_and_names_what_was_not() -> None:
    text = page.page(REPORT)

    assert "Some &lt;processor&gt;, 2 cores" in text
    assert "mine &amp; yours" in text
    assert "<h2>peers (2026-01-02, 71.5 s)</h2>" in text
    assert "<h2>rules (earlier)</h2>" in text
    assert "A remembered token, 2026-01-02 (CPU µs per check)" in text
    assert "A decision by a policy, earlier (decision, us)" in text
    assert "<td>left out / Go with a cache</td><td>go is not installed</td>" in text
    assert "A check, of so many tokens, earlier (CPU us)" in text
    assert "Memory of open streams that wait, earlier (MB)" in text
    assert "<p>Verify RS256: not measured.</p>" in text
    assert "<p>A remembered token: not measured.</p>" not in text


def test_bar_is_as_long_as_its_value() -> None:
    drawn = ET.fromstring(bars("some", {"ours": 10, "theirs": 40}, unit="µs", ours="ours"))  # noqa: S314 - ours
    short, long = (float(each.attrib["width"]) for each in drawn if each.tag.endswith("rect"))

    assert long == pytest.approx(4 * short)


def test_what_grows_as_the_work_does_is_a_straight_line_on_growth() -> None:
    linear = places(growth("some", {"a": [(10, 1), (100, 10), (1000, 100)]}, across="rules", up="s"))
    (x, y), (right, higher), (far, highest) = linear

    assert (right - x, y - higher) == pytest.approx((far - right, higher - highest), abs=0.2)


def test_growth_leaves_out_what_has_no_logarithm() -> None:
    assert len(places(growth("some", {"a": [(0, 1), (10, 0), (10, 1), (100, 2)]}, across="rules", up="s"))) == 2


def test_new_figures_take_the_place_of_old_ones_and_leave_the_rest() -> None:
    new = {**report.begun(), "measured": {}}
    report.add(new, "rules", {"rules, JSON": {500: {"decision, us": 1.0}}}, 3.21)

    both = report.overlaid(copy.deepcopy(REPORT), new)

    assert both["peers"] == REPORT["peers"]
    assert both["rules"] == {"rules, JSON": {"500": {"decision, us": 1.0}}}
    assert both["measured"]["peers"] == REPORT["measured"]["peers"]
    assert both["measured"]["rules"]["seconds"] == 3.2


def test_document_shows_the_figures_that_are_kept() -> None:
    text = document.DOCUMENT.read_text(encoding="utf-8")

    assert page.PICTURE.read_text(encoding="utf-8") == page.picture(report.kept())
    assert document.renewed(text, report.kept()) == text


def test_tables_name_the_floor_of_grpc_and_the_share_of_tokens_that_are_remembered() -> None:
    text = document.renewed("<!-- streams -->\n<!-- end -->\n<!-- distinct -->\n<!-- end -->\n", REPORT)

    assert "| bytes per stream | 100 open | 1,000 open | above the bare server |" in text
    assert "| grpc.aio, bare | 24821 | 24772 | none |" in text
    assert "| grpc.aio, ours | 28000 | 28921 | 4149 |" in text
    assert "| 50,000 | 53.3 | 0.82 |" in text


def test_tables_of_the_document_are_replaced_and_nothing_else() -> None:
    text = "before\n<!-- peers -->\nold\n<!-- end -->\nbetween\n<!-- counts -->\n<!-- end -->\nafter\n"

    renewed = document.renewed(document.renewed(text, REPORT), REPORT)

    assert "| mine & yours | 80.0 | none |" in renewed
    assert "Measured on 2026-01-02: Some <processor>, 2 cores, Python 3.11.7." in renewed
    assert "old" not in renewed
    assert [renewed.count(word) for word in ("before", "\nbetween\n", "after", "<!-- end -->")] == [1, 1, 1, 2]
