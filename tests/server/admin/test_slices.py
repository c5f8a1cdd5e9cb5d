"""What is written for the page is JSON, and made with rests in between."""

import json
from typing import Any

import pytest

from authz.server.admin import slices
from authz.server.admin.slices import LONG_SLICE, SLICE, encoded, in_slices

DATA: dict[str, Any] = {
    "": None,
    "text": '\ud800é\n"',
    "numbers": [1, 2.5, None],
    "none": [],
    "nested": {"list": [{"a": [1]}]},
    "many": [{"name": f"rule-{number}", "conditions": [["method", "/a"]]} for number in range(1000)],
}


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    rests: list[float] = []
    monkeypatch.setattr(slices.time, "sleep", rests.append)
    return rests


@pytest.mark.usefixtures("rests")
def test_what_is_written_is_what_json_writes() -> None:
    assert encoded(DATA) == json.dumps(DATA, separators=(",", ":")).encode()
    assert encoded({}) == b"{}"


def test_work_on_many_things_has_rests(rests: list[float]) -> None:
    encoded(DATA)
    written = len(rests)
    looked_at = list(in_slices(range(5 * LONG_SLICE), LONG_SLICE))

    assert written == 1000 // SLICE
    assert len(rests) - written == 5
    assert looked_at == list(range(5 * LONG_SLICE))
    assert all(rest > 0 for rest in rests)
