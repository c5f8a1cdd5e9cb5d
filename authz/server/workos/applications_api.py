"""Pages of applications, by WorkOS's own client; import it only where it is used: it loads slowly."""

from collections.abc import Mapping
from typing import Any

import workos

from authz.organizations.workos_api import answering, client_of
from authz.runtime.asking import NoAnswerError
from authz.runtime.network import causes
from authz.runtime.network.transport import Transport
from authz.server.workos.applications import Application, ApplicationPage

MAX_APPLICATIONS = 100
"""How many applications WorkOS lists at a time, at the most."""

_WHAT = "not applications"


class ApplicationsApi:
    """What WorkOS says of applications; each method blocks.

    Args:
        api_key: the environment's key.
        base_url: the API's URL.
        transport: sends the requests.

    """

    def __init__(self, api_key: str, base_url: str, transport: Transport) -> None:
        self._transport = transport
        self._client = client_of(api_key, base_url, transport)

    def page(self, after: str) -> ApplicationPage:
        """Return the next applications.

        Args:
            after: where the page before has ended; empty for the first page.

        Raises:
            NoAnswerError: WorkOS does not say.

        """
        # The order of the API is the opposite by default: what is added meanwhile would move every page.
        asked: dict[str, Any] = {"limit": MAX_APPLICATIONS, "order": "asc"}
        if after:
            asked["after"] = after
        with answering(_WHAT):
            return _page(self._client.request_raw("GET", ["connect", "applications"], params=asked))

    def has_application(self, name: str) -> bool:
        """Say whether there is an application of this id of the API.

        Raises:
            NoAnswerError: WorkOS does not say.

        """
        return self._has("connect", "applications", name)

    def has_organization(self, org_id: str) -> bool:
        """Say whether there is an organization of this id.

        Raises:
            NoAnswerError: WorkOS does not say.

        """
        return self._has("organizations", org_id)

    def close(self) -> None:
        """End what is under way."""
        self._transport.close()

    def _has(self, *path: str) -> bool:
        with answering(_WHAT):
            try:
                told = self._client.request_raw("GET", list(path))
            except workos.NotFoundError as error:
                # A 404 of a proxy, or from a wrong address, says nothing.
                said: Any = error.response_json
                if not isinstance(said, Mapping) or "message" not in said:
                    raise NoAnswerError(f"{causes.status(404)} (but not from WorkOS)") from None
                return False
            if told.get("id") != path[-1]:
                raise NoAnswerError("mismatch (the answer is not what was asked for)")
            return True


def _page(told: dict[str, Any]) -> ApplicationPage:
    listed, places = told["data"], told["list_metadata"]
    if not isinstance(listed, list) or not isinstance(places, dict):
        raise NoAnswerError(_WHAT)
    after = places.get("after") or ""
    if not isinstance(after, str) or (after and not listed):
        raise NoAnswerError(_WHAT)
    read = [Application.of(each) for each in listed]
    applications = [each for each in read if each is not None]
    return ApplicationPage(applications, len(listed) - len(applications), after)
