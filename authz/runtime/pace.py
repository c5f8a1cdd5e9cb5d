"""The pace of long work in the background: a moment of work, then a rest, so that no thread that decides waits long."""

import time

WORK_SECONDS = 0.0005
"""How long such work goes on. Python itself takes the interpreter from a thread after 5 ms, for which others wait."""

REST_SECONDS = 0.001
"""How long it rests then."""


class Pace:
    """Long work calls :meth:`step` after each of its steps."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def step(self) -> None:
        """Rest, if there has been no rest for a moment."""
        if time.perf_counter() - self._since >= WORK_SECONDS:
            time.sleep(REST_SECONDS)
            self._since = time.perf_counter()
