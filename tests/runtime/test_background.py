"""Work in the background changes how threads take turns, but only while it lasts."""

import contextlib
import gc
import sys

from authz.runtime.background import background


def test_threads_take_turns_more_often_and_no_garbage_is_collected_until_the_end() -> None:
    before = sys.getswitchinterval()
    with contextlib.suppress(KeyError), background():
        during = sys.getswitchinterval(), gc.isenabled()
        raise KeyError

    assert during < (before, False)
    assert not during[1]
    assert (sys.getswitchinterval(), gc.isenabled()) == (before, True)
