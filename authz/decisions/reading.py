"""Reading a decision log, line by line."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def decisions_in(lines: Iterable[bytes], read: Callable[[Any], T]) -> Iterator[T | None]:
    """Yield what ``read`` makes of each decision, and ``None`` for each line that is none; ends of streams are skipped.

    Args:
        lines: JSON lines as :class:`authz.DecisionLog` writes them.
        read: gets a line as plain data; raises ``KeyError``, ``TypeError`` or ``ValueError`` if it is no decision.

    """
    for line in lines:
        if line.isspace():
            # After a line that a full disk has cut short, the next one begins with a line break.
            continue
        try:
            data = json.loads(line)
            if data["event"] != "decision":
                # The stream's begin was logged as a decision before.
                continue
            decision = read(data)
        except (KeyError, RecursionError, TypeError, ValueError):
            decision = None
        yield decision
