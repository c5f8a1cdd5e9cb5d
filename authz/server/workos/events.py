"""Events of WorkOS, and the orders that they become."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple, Self

from authz.call.words import ORG_ID_PATTERN, is_identifier
from authz.judge.orders.order import MICROSECONDS, Order, Source

WORKOS: Source = "workos"
"""What these orders come from."""

EventName = Literal["organization.updated", "organization.deleted"]

DELETED_SECONDS = 366 * 86_400.0
"""How long an organization that was deleted is refused; WorkOS issues no token for it any more."""

RENEWAL_SECONDS = 3600.0
"""For how long it is told that an organization has changed: no directory believes an older answer for longer."""

_ORG_ID = re.compile(ORG_ID_PATTERN, re.ASCII)
# WorkOS's clock and ours may differ by so much.
_AHEAD_SECONDS = 86_400.0


class Event(NamedTuple):
    """An event of WorkOS.

    Args:
        id: ``event_…``, by which the next page is asked for.
        name: what has happened, such as ``organization.deleted``.
        at: when, in POSIX seconds; ``None`` if it does not say.
        org_id: the organization that it is about; empty if it names none.

    """

    id: str
    name: str
    at: float | None
    org_id: str

    @classmethod
    def of(cls, told: object) -> Self | None:
        """Return the event that an element of a page is; ``None`` if it has no id, and so cannot be followed."""
        if not isinstance(told, Mapping):
            return None
        name, event_id = told.get("event"), told.get("id")
        if not isinstance(event_id, str) or not is_identifier(event_id):
            return None
        data: Any = told.get("data")
        org_id = data.get("id") if isinstance(data, Mapping) else None
        if not isinstance(org_id, str) or not _ORG_ID.fullmatch(org_id):
            org_id = ""
        return cls(event_id, name if isinstance(name, str) else "", _time(told.get("created_at")), org_id)

    def order(self, now: float, issuer: str = "") -> Order | None:
        """Return the order that it becomes; ``None`` if it is about nothing that is understood.

        The order has the time of the event, so that each process makes the same of the event, however often.

        Args:
            now: the time, in POSIX seconds: an event from the future is not understood.
            issuer: the issuer of WorkOS, if the organizations of others may have the same ids.

        """
        if not self.org_id or self.at is None or self.at > now + _AHEAD_SECONDS:
            return None
        at = round(self.at * MICROSECONDS)
        if self.name == "organization.deleted":
            until = self.at + DELETED_SECONDS
            return Order(
                "revoke", "organization", self.org_id, issuer, until=until, reason=_DELETED, source=WORKOS, at=at
            )
        if self.name == "organization.updated":
            return Order("renew", "organization", self.org_id, until=self.at + RENEWAL_SECONDS, source=WORKOS, at=at)
        return None


class Page(NamedTuple):
    """Events in the order in which they happened.

    Args:
        events: the events.
        unread: how many more there were that cannot be read.
        has_more: whether there are more after these.

    """

    events: list[Event]
    unread: int
    has_more: bool


_DELETED = "deleted in WorkOS"


def _time(text: object) -> float | None:
    # ISO 8601 in UTC, as WorkOS writes it.
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    if at is None or at.tzinfo is None:
        return None
    seconds = at.timestamp()
    return seconds if seconds > 0 else None
