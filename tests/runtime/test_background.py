"""Work in the background changes how threads take turns, but only while it lasts."""

import contextlib
import gc
import sys

import pytest

from authz.runtime.background import _background, background


def test_threads_take_turns_more_often_and_no_garbage_is_collected_until_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_background, "is_allowed", True)
    before = sys.getswitchinterval()
    with contextlib.suppress(KeyError), background():
        during = sys.getswitchinterval(), gc.isenabled()
        raise KeyError

    assert during < (before, False)
    assert not during[1]
    assert (sys.getswitchinterval(), gc.isenabled()) == (before, True)


def test_a_program_that_has_not_allowed_it_goes_on_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_background, "is_allowed", False)
    before = sys.getswitchinterval(), gc.isenabled()
    with background():
        during = sys.getswitchinterval(), gc.isenabled()

    assert during == before
