"""The newest decisions as JSON: written once for all pages, and given to each as far as it has not seen them."""

from collections.abc import Iterator

from authz.server.admin.backend import Json
from authz.server.admin.slices import in_slices, joined, text_of
from authz.server.shared_orders import SharedOrders

_MOST_DIGITS = 20


class News:
    """The decisions of one moment.

    Args:
        told: an answer of :meth:`authz.server.admin.backend.Source.decisions`. It is written in slices, so call this
            on a thread that does not decide.

    """

    def __init__(self, told: Json) -> None:
        self._last = dict(_positions(told["cursor"]))
        self._cursor = text_of(told["cursor"])
        self._written = [(*_position(one["id"]), text_of(one)) for one in in_slices(told["decisions"])]

    def after(self, cursor: str) -> bytes:
        """Return the decisions after ``cursor`` as JSON, with the next cursor, and how many were missed.

        Args:
            cursor: from an earlier answer. All decisions of a process that it does not name are returned.

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
    """Return the process, and how many decisions it had made; -1 if ``text`` is no position."""
    origin, _, number = text.partition("-")
    # A longer number is none of ours, and would take long to read.
    is_number = number.isascii() and number.isdecimal() and len(number) <= _MOST_DIGITS
    return origin, int(number) if is_number else -1


def with_others(told: Json, shared: SharedOrders | None) -> Json:
    """Return an answer of :meth:`authz.server.admin.backend.Source.decisions` with those of other replicas as well.

    Args:
        told: the answer, with decisions of this server only.
        shared: what shares them with other replicas, if anything does.

    """
    if shared is None or shared.sharing is None:
        return told
    others = shared.sharing.decisions.others()
    # Each by the clock of its replica.
    decisions = sorted([*told["decisions"], *others.decisions], key=_time)
    return {"decisions": decisions, "cursor": f"{told['cursor']},{others.cursor}"}


def _time(decision: Json) -> float:
    time: float = decision["time"]
    return time
