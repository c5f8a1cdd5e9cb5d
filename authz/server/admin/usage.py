"""What one organization uses, as the page asks: hour by hour and day by day, from the store that replicas share."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from authz.decisions.usage import DAY, HOUR, Row
from authz.decisions.usage_report import Query
from authz.runtime import telemetry
from authz.server.admin.guard import answer, refusal
from authz.server.coalescing import PAUSE, Paced
from authz.settings.settings import Settings

if TYPE_CHECKING:
    from authz.store.usage.counts import UsageStore

MAX_METHODS = 8
"""How many methods are told one by one: those called most."""

_ID = re.compile(r"[!-~]{1,256}")
# As a part of the pause between looks: an operator chooses one organization after the other.
_SHARE = 0.1


class Used:
    """Answer how much an organization uses.

    Args:
        usage: the counts in the store; ``None`` where there is no store.
        days: for how many days the store keeps them.
        pause: seconds between one look at the source and the next, however many clients ask.

    """

    def __init__(self, usage: "UsageStore | None", days: int, *, pause: float = PAUSE) -> None:
        self._usage, self._days = usage, days
        self._paced = Paced(pause * _SHARE)

    async def answer(self, request: Request) -> Response:
        """Answer the hours of the last day, all days that are kept, and the methods called most on the last day."""
        organization = request.query_params.get("organization", "")
        if not _ID.fullmatch(organization):
            return refusal(400, "organization: give the id of one.")
        if self._usage is None:
            return answer({"hours": None})
        from authz.store.connection import StoreError  # noqa: PLC0415 - the extra's

        async with self._paced.turn():
            try:
                told = await asyncio.to_thread(self._told, self._usage, organization, time.time())
            except StoreError as error:
                telemetry.event(telemetry.WARNING, "usage_unknown", reason=error.reason)
                return refusal(503, "The store does not say how much is used. Try again.")
        return answer(told)

    def _told(self, usage: "UsageStore", organization: str, now: float) -> dict[str, Any]:
        hours = list(usage.rows(Query(("hour", "method"), now - DAY, organization=organization), now))
        days = usage.rows(Query(("day",), now - self._days * DAY, organization=organization), now)
        methods = Counter[str]()
        for row, count in hours:
            methods[row.method] += count
        return {
            "now": now,
            "hours": _bars(hours, HOUR),
            "days": _bars(days, DAY),
            "methods": methods.most_common(MAX_METHODS),
        }


def usage_of(settings: Settings) -> "UsageStore | None":
    """Return the counts in the store that the settings name; ``None`` if they name none.

    Raises:
        ConfigError: a setting cannot work.

    """
    if settings.store is None or not settings.usage_days:
        return None
    from authz.store.connection import Store  # noqa: PLC0415 - nothing of it is imported without a store
    from authz.store.usage.counts import UsageStore  # noqa: PLC0415 - as above

    store = Store.of(settings)
    return None if store is None else UsageStore(store, days=settings.usage_days)


def _bars(rows: Iterable[tuple[Row, int]], seconds: int) -> list[tuple[int, int, int]]:
    """Return for each period when it began, and how many calls were allowed and refused in it."""
    allowed, refused = Counter[int](), Counter[int]()
    for row, count in rows:
        (allowed if row.verdict == "allowed" else refused)[row.time // seconds * seconds] += count
    return [(begin, allowed[begin], refused[begin]) for begin in sorted(allowed.keys() | refused.keys())]
