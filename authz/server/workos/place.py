"""Where it is kept how far the events of WorkOS have become orders: the cursor, and who may move it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self

from authz.call.words import MAX_TIME, is_identifier
from authz.judge.orders.file import OrdersFile
from authz.judge.orders.operator import NotKeptError, Operator
from authz.judge.orders.order import Order
from authz.runtime.asking import NoAnswerError
from authz.server.workos.events import WORKOS


class PlaceError(NoAnswerError):
    """The cursor, or an order, could not be kept; the text says why, and what to do."""


class Cursor(NamedTuple):
    """How far events were read.

    Args:
        id: of the event that was read last; empty for none.
        at: when that happened, or since when there is none, in POSIX seconds.

    """

    id: str
    at: float

    @classmethod
    def of(cls, told: object) -> Self | None:
        """Return the cursor that was written as :meth:`told` says; ``None`` if it is none."""
        if not isinstance(told, Mapping):
            return None
        event_id, at = told.get("id"), told.get("at")
        if not isinstance(event_id, str) or (event_id and not is_identifier(event_id)):
            return None
        if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at <= MAX_TIME:
            return None
        return cls(event_id, float(at))

    def told(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return self._asdict()


class Place(Protocol):
    """Keeps the cursor, and has the orders kept before it."""

    def lead(self) -> bool:
        """Say whether this process is the one that follows, for some seconds from now on.

        Raises:
            PlaceError: that cannot be known.

        """

    def cursor(self) -> Cursor | None:
        """Return the cursor; ``None`` if there is none.

        Raises:
            PlaceError: that cannot be known.

        """

    def move(self, orders: Sequence[Order], cursor: Cursor) -> bool:
        """Put orders in force, then move the cursor; say whether this process may do so still.

        Orders that are known already do no harm, so what fails halfway can be done again.

        Args:
            orders: what the events up to the cursor have become.
            cursor: the cursor.

        Raises:
            PlaceError: not all is kept.

        """

    def nudge(self) -> None:
        """Tell the process that follows that there is something to ask for.

        Raises:
            PlaceError: it cannot be told.

        """

    def is_nudged(self) -> bool:
        """Say whether another process has told this one so since it was last asked.

        Raises:
            PlaceError: that cannot be known.

        """

    def leave(self) -> None:
        """Let another process follow."""


class PlaceHere:
    """Keeps it in the file of orders, or without one as long as this process lives, which is the only one.

    Args:
        operator: carries out the orders.
        file: the file, if there is one.

    """

    def __init__(self, operator: Operator, file: OrdersFile | None) -> None:
        self._operator, self._file = operator, file
        self._cursor: Cursor | None = None

    def lead(self) -> bool:
        """See :class:`Place`."""
        return True

    def cursor(self) -> Cursor | None:
        """See :class:`Place`."""
        return self._cursor if self._file is None else Cursor.of(self._file.cursors.get(WORKOS))

    def move(self, orders: Sequence[Order], cursor: Cursor) -> bool:
        """See :class:`Place`."""
        self._operator.carry_out(orders)
        self._cursor = cursor
        if self._file is not None:
            try:
                self._file.keep_cursor(WORKOS, cursor.told())
            except NotKeptError as error:
                raise PlaceError(str(error)) from None
        return True

    def nudge(self) -> None:
        """See :class:`Place`."""

    def is_nudged(self) -> bool:
        """See :class:`Place`."""
        return False

    def leave(self) -> None:
        """See :class:`Place`."""
