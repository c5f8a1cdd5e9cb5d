"""The newest decisions as JSON: written once for all who look, and given to each as far as it has not seen them."""

from collections.abc import Iterator

from authz.server.admin.backend import Json
from authz.server.admin.slices import in_slices, joined, text_of

_MOST_DIGITS = 20


class News:
    """The decisions of one moment.

    Args:
        told: what :meth:`authz.server.admin.backend.Source.decisions` has told. It is written in slices, so this is
            for a thread that does not decide.

    """

    def __init__(self, told: Json) -> None:
        self._last = dict(_positions(told["cursor"]))
        self._cursor = text_of(told["cursor"])
        self._written = [(*_position(one["id"]), text_of(one)) for one in in_slices(told["decisions"])]

    def after(self, cursor: str) -> bytes:
        """Return the decisions after ``cursor`` as JSON, with the next cursor, and how many more there were.

        Args:
            cursor: what came with an earlier answer. Of a process that it does not name, everything that is told.

        """
        seen = dict(_positions(cursor))
        new = [(origin, text) for origin, number, text in self._written if number > seen.get(origin, -1)]
        made = sum(max(0, last - seen[origin]) for origin, last in self._last.items() if origin in seen)
        missed = made - sum(origin in seen for origin, _ in new)
        decisions = joined(text for _, text in new)
        return b'{"decisions":%s,"cursor":%s,"missed":%d}' % (decisions, self._cursor, missed)


def _positions(cursor: str) -> Iterator[tuple[str, int]]:
    for part in cursor.split(","):
        origin, number = _position(part)
        if number >= 0:
            yield origin, number


def _position(text: str) -> tuple[str, int]:
    """Return which process, and how many decisions it had made; -1 if that makes no sense."""
    origin, _, number = text.partition("-")
    # More digits than that is no number of ours, and would take long to read.
    is_number = number.isascii() and number.isdecimal() and len(number) <= _MOST_DIGITS
    return origin, int(number) if is_number else -1
