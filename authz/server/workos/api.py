"""Pages of events, by WorkOS's own client; import it only where it is used: it loads slowly.

What is not understood in a page is left out, so that one event of an unknown form does not hide those after it.
"""

from datetime import UTC, datetime
from typing import Any, get_args

import workos

from authz.organizations.workos_api import answering, client_of
from authz.runtime.asking import NoAnswerError
from authz.runtime.network import causes
from authz.runtime.network.transport import Transport
from authz.server.workos.events import Event, EventName, Page
from authz.server.workos.place import Cursor

# WorkOS has events of 90 days.
_KEPT_SECONDS = 89 * 86_400.0


_WHAT = "not events"


class EventsApi:
    """WorkOS's Events API as a function: :meth:`page`, which blocks.

    Args:
        api_key: the environment's key.
        base_url: the API's URL.
        transport: sends the requests.

    """

    def __init__(self, api_key: str, base_url: str, transport: Transport) -> None:
        self._transport = transport
        self._client = client_of(api_key, base_url, transport)

    def page(self, cursor: Cursor, limit: int, now: float) -> Page:
        """Return what has happened next.

        Args:
            cursor: after which event; if it names none, since which time.
            limit: how many events at the most.
            now: the time, in POSIX seconds.

        Raises:
            NoAnswerError: WorkOS does not say; ``is_about_one`` if it does not know the event after which to begin.

        """
        # The order of the API is the opposite by default.
        asked: dict[str, Any] = {"events": list(get_args(EventName)), "limit": limit, "order": "asc"}
        if cursor.id:
            asked["after"] = cursor.id
        else:
            since = datetime.fromtimestamp(max(cursor.at, now - _KEPT_SECONDS), UTC)
            asked["range_start"] = since.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with answering(_WHAT):
            try:
                return _page(self._client.request_raw("GET", ["events"], params=asked))
            except workos.NotFoundError:
                raise NoAnswerError(causes.status(404), is_about_one=True) from None

    def close(self) -> None:
        """End what is under way."""
        self._transport.close()


def _page(told: dict[str, Any]) -> Page:
    """Return the page that an answer is.

    Raises:
        NoAnswerError: it is none.

    """
    listed, after = told.get("data"), told.get("list_metadata")
    if not isinstance(listed, list) or not isinstance(after, dict):
        raise NoAnswerError(_WHAT)
    read = [Event.of(each) for each in listed]
    events = [event for event in read if event is not None]
    if listed and not events:
        # Without an id there is no way on.
        raise NoAnswerError(_WHAT)
    return Page(events, len(listed) - len(events), bool(after.get("after")))
