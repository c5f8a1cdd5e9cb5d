"""What has happened in the environment of the development issuer, in the order in which it happened."""

import itertools
from collections import deque
from collections.abc import Collection, Iterator
from typing import Literal, NamedTuple

from authz.demo.issuer.directory import Organization
from authz.demo.issuer.ulid import new_ulid

EventName = Literal["organization.created", "organization.updated", "organization.deleted"]

MAX_EVENTS = 10_000
"""How many are remembered; WorkOS remembers those of 90 days."""


class Event(NamedTuple):
    """An event of WorkOS.

    Args:
        id: ``event_…``.
        name: what has happened.
        at: when, in POSIX seconds.
        organization: what it has happened to, as it is now, or was at its end.

    """

    id: str
    name: EventName
    at: float
    organization: Organization


class UnknownEventError(LookupError):
    """There is no event of the id that was given as a place in the list."""


class Events:
    """A list that only grows; one thread at a time may add to it."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)

    def add(self, name: EventName, organization: Organization, at: float) -> Event:
        """Add an event, and return it."""
        event = Event(f"event_{new_ulid()}", name, at, organization)
        self._events.append(event)
        return event

    def page(
        self,
        names: Collection[str],
        *,
        limit: int,
        after: str | None = None,
        is_ascending: bool = True,
        since: float | None = None,
        organization: str | None = None,
    ) -> tuple[list[Event], bool]:
        """Return some of the events, and whether there are more.

        Args:
            names: which kinds of events.
            limit: how many at the most.
            after: the id of the event after which to begin, in the order that is asked for.
            is_ascending: whether the oldest comes first.
            since: only those that happened at this POSIX time or later.
            organization: only those of the organization of this id.

        Raises:
            UnknownEventError: there is no event ``after``.

        """
        events: Iterator[Event] = iter(list(self._events) if is_ascending else list(self._events)[::-1])
        if after is not None and not any(event.id == after for event in events):
            # The loop has gone on to the event after which to begin, or found none.
            raise UnknownEventError
        wanted = (
            event
            for event in events
            if event.name in names
            and (since is None or event.at >= since)
            and (organization is None or event.organization.id == organization)
        )
        found = list(itertools.islice(wanted, limit + 1))
        return found[:limit], len(found) > limit
