"""A few of the decisions of each second, for a page that shows those of many processes."""

import threading
from typing import Any, NamedTuple

from authz.decisions.decision import Decision, Record
from authz.runtime import fork

SAMPLED = 10
"""How many decisions to allow are kept between two looks, and how many to refuse: no flood hides the other kind."""

ON_SECONDS = 5.0
"""How long decisions are kept after a look; then this costs a decision one comparison."""

SHOWN = (
    *("event", "method", "verb", "verdict", "reason", "organization", "client", "client_name", "policy", "rule"),
    *("source", "order_source", "milliseconds"),
)
"""What is told of a decision besides its time: what a page shows, out of what a decision log has."""


class Sampled(NamedTuple):
    """What was kept since the last look.

    Args:
        decisions: plain data, the oldest first, each with its time in POSIX seconds and the fields of :data:`SHOWN`.
        left_out: how many more there were.

    """

    decisions: list[dict[str, Any]]
    left_out: int


class Sample:
    """Keep the first decisions after each look; an observer of :class:`authz.Authorizer`.

    It holds no token, and of a token's claims only organization and client. Without looks it keeps nothing.
    """

    def __init__(self) -> None:
        self.after_fork()
        fork.register(self)

    def after_fork(self) -> None:
        """Forget what the parent has kept."""
        self._lock = threading.Lock()
        # By the clock of decisions.
        self._until = 0.0
        self._allowed: list[Record] = []
        self._refused: list[Record] = []
        self._left_out = 0

    def __call__(self, decision: Decision) -> None:
        """Take in one decision; never waits."""
        if decision.time >= self._until:
            return
        with self._lock:
            kept = self._allowed if decision.refusal is None else self._refused
            if len(kept) < SAMPLED:
                kept.append(decision.record())
            else:
                self._left_out += 1

    def look(self, now: float) -> Sampled:
        """Return what was kept since the last look, and keep more from now on.

        Args:
            now: the time, in POSIX seconds, by the clock of the decisions.

        """
        with self._lock:
            # What was kept after the last of many looks is old by now.
            is_new = now < self._until
            kept, left_out = self._allowed + self._refused, self._left_out
            self._allowed, self._refused, self._left_out = [], [], 0
            self._until = now + ON_SECONDS
        return Sampled([_told(each) for each in sorted(kept, key=_time)], left_out) if is_new else Sampled([], 0)


def _time(record: Record) -> float:
    return record.time


def _told(record: Record) -> dict[str, Any]:
    fields = record.fields()
    return {**{name: fields[name] for name in SHOWN}, "time": record.time}
