"""The part of WorkOS's API that the development issuer answers: organizations, events, applications of Connect.

Paths, parameters and answers are WorkOS's (https://workos.com/docs/reference); errors are simpler.
"""

import hmac
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from authz.demo.issuer.bodies import BodyError, read_body
from authz.demo.issuer.directory import Application, Organization
from authz.demo.issuer.environment import Environment
from authz.demo.issuer.events import Event, UnknownEventError

MAX_LIMIT = 100
"""How many things an answer lists at the most."""

_DEFAULT_LIMIT = "10"
# WorkOS's client needs a time, but the issuer keeps none.
_SINCE = "2026-01-15T12:00:00.000Z"

Endpoint = Callable[[Request], Awaitable[Response]]


class _ApiError(Exception):
    def __init__(self, status: int, message: str, **more: str) -> None:
        super().__init__(message)
        self.status, self.answer = status, {"message": message, **more}


class WorkOSApi:
    """The endpoints, each of which asks for the API key.

    Args:
        environment: what they tell about, and change.

    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def routes(self) -> list[Route]:
        """Return the routes to the endpoints."""
        endpoints: list[tuple[str, str, Endpoint]] = [
            ("GET", "/organizations/{id}", self._organization),
            ("PUT", "/organizations/{id}", self._update_organization),
            ("DELETE", "/organizations/{id}", self._delete_organization),
            ("GET", "/events", self._events),
            ("GET", "/connect/applications", self._applications),
            ("GET", "/connect/applications/{id}", self._application),
            ("DELETE", "/connect/applications/{id}", self._delete_application),
        ]
        return [Route(path, self._with_key(endpoint), methods=[method]) for method, path, endpoint in endpoints]

    def _with_key(self, endpoint: Endpoint) -> Endpoint:
        async def answer(request: Request) -> Response:
            scheme, _, key = request.headers.get("authorization", "").partition(" ")
            expected = self._environment.directory.api_key
            if scheme.lower() != "bearer" or not hmac.compare_digest(key.encode(), expected.encode()):
                return JSONResponse({"message": "Unauthorized"}, status_code=401)
            try:
                return await endpoint(request)
            except BodyError as error:
                return JSONResponse({"message": error.description}, status_code=error.status)
            except _ApiError as error:
                return JSONResponse(error.answer, status_code=error.status)

        return answer

    async def _organization(self, request: Request) -> Response:
        org_id = request.path_params["id"]
        found = self._environment.directory.organization(org_id)
        if found is None:
            raise _missing("Organization", org_id)
        return JSONResponse(_organization_json(found))

    async def _update_organization(self, request: Request) -> Response:
        changes = _changes(await read_body(request))
        org_id = request.path_params["id"]
        try:
            return JSONResponse(_organization_json(self._environment.update_organization(org_id, changes)))
        except LookupError:
            raise _missing("Organization", org_id) from None

    async def _delete_organization(self, request: Request) -> Response:
        org_id = request.path_params["id"]
        try:
            self._environment.delete_organization(org_id)
        except LookupError:
            raise _missing("Organization", org_id) from None
        return Response(status_code=204)

    async def _events(self, request: Request) -> Response:
        asked = request.query_params
        names = {name for given in asked.getlist("events") for name in given.split(",") if name}
        if not names:
            raise _ApiError(422, "events: name at least one.")
        try:
            found, has_more = self._environment.events.page(
                names,
                limit=_limit(request),
                after=asked.get("after"),
                is_ascending=_is_ascending(request),
                since=_time(asked["range_start"]) if "range_start" in asked else None,
                organization=asked.get("organization_id"),
            )
        except UnknownEventError:
            raise _ApiError(422, "after: no event of that id.") from None
        return _list([event_json(event) for event in found], has_more=has_more)

    async def _applications(self, request: Request) -> Response:
        asked, limit = request.query_params, _limit(request)
        kinds = asked.get("registration_types", "authenticated").split(",")
        known = [
            application
            for application in self._environment.directory.applications
            # Applications that register themselves are no part of this environment.
            if "authenticated" in kinds and asked.get("organization_id", application.org_id) == application.org_id
        ]
        if not _is_ascending(request):
            known.reverse()
        if "after" in asked:
            place = next((n for n, each in enumerate(known, 1) if application_id(each) == asked["after"]), None)
            if place is None:
                raise _ApiError(422, "after: no application of that id.")
            known = known[place:]
        return _list([_application_json(each) for each in known[:limit]], has_more=len(known) > limit)

    async def _application(self, request: Request) -> Response:
        return JSONResponse(_application_json(self._wanted(request)))

    async def _delete_application(self, request: Request) -> Response:
        self._environment.delete_application(self._wanted(request).client_id)
        return Response(status_code=204)

    def _wanted(self, request: Request) -> Application:
        wanted = request.path_params["id"]
        for each in self._environment.directory.applications:
            if wanted in (application_id(each), each.client_id):
                return each
        raise _missing("Application", wanted)


def application_id(application: Application) -> str:
    """Return the id by which WorkOS's API knows an application, which is not its client id."""
    return f"conn_app_{application.client_id.removeprefix('client_')}"


def event_json(event: Event) -> dict[str, object]:
    """Return an event as the API lists it, and as the body of a webhook has it."""
    return {
        "object": "event",
        "id": event.id,
        "event": event.name,
        "created_at": datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "data": _organization_json(event.organization),
    }


def _organization_json(organization: Organization) -> dict[str, object]:
    return {
        "object": "organization",
        "id": organization.id,
        "name": organization.name,
        "domains": [],
        "metadata": dict(organization.metadata),
        "external_id": organization.external_id or None,
        "created_at": _SINCE,
        "updated_at": _SINCE,
    }


def _application_json(application: Application) -> dict[str, object]:
    about: dict[str, object] = {
        "object": "connect_application",
        "id": application_id(application),
        "client_id": application.client_id,
        "name": application.name,
        "description": application.description or None,
        "application_type": application.type,
        "scopes": list(application.scopes),
        "created_at": _SINCE,
        "updated_at": _SINCE,
    }
    if application.type == "m2m":
        return {**about, "organization_id": application.org_id}
    signs_in: dict[str, object] = {"redirect_uris": [], "cors_origins": [], "uses_pkce": False, "is_first_party": True}
    return {**about, **signs_in}


def _list(data: Sequence[dict[str, object]], *, has_more: bool) -> Response:
    after = data[-1]["id"] if has_more else None
    return JSONResponse({"object": "list", "data": data, "list_metadata": {"before": None, "after": after}})


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", _DEFAULT_LIMIT)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_LIMIT):
        raise _ApiError(422, f"limit: a number from 1 to {MAX_LIMIT}.")
    return int(text)


def _is_ascending(request: Request) -> bool:
    order = request.query_params.get("order", "desc")
    if order not in ("asc", "desc"):
        raise _ApiError(422, "order: asc or desc.")
    return order == "asc"


def _time(text: str) -> float:
    try:
        if text.endswith("Z"):
            return datetime.fromisoformat(text).timestamp()
    except ValueError:
        pass
    raise _ApiError(422, "range_start: a time in UTC (ISO 8601) that ends with Z.")


def _changes(body: bytes) -> dict[str, Any]:
    try:
        changes = json.loads(body)
    except (ValueError, RecursionError):
        raise _ApiError(400, "The body is not JSON.") from None
    if not isinstance(changes, dict) or not changes.keys() <= {"name", "external_id", "metadata"}:
        raise _ApiError(422, "Send a JSON object of name, external_id and metadata.")
    metadata = changes.get("metadata", {})
    texts = [changes.get("name", "-"), *metadata.values()] if isinstance(metadata, dict) else [None]
    if changes.get("external_id", "") is None:
        # That is how WorkOS takes one away.
        changes["external_id"] = ""
    if not all(isinstance(text, str) for text in (*texts, changes.get("external_id", ""))):
        raise _ApiError(422, "name, external_id and the values of metadata are texts.")
    return changes


def _missing(what: str, name: str) -> _ApiError:
    return _ApiError(404, f"{what} not found: '{name}'.", code="entity_not_found", entity_id=name)
