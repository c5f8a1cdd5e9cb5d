"""The part of WorkOS's API that the development issuer answers: ``GET /organizations/{id}``."""

import hmac

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from authz.demo.issuer.directory import Directory, Organization

# WorkOS's client needs a time, but the issuer keeps none.
_SINCE = "2026-01-15T12:00:00.000Z"


async def organization(directory: Directory, request: Request) -> Response:
    """Answer with one organization, if the request has the API key."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(key.encode(), directory.api_key.encode()):
        return JSONResponse({"message": "Unauthorized"}, status_code=401)
    org_id = request.path_params["id"]
    found = next((known for known in directory.organizations if known.id == org_id), None)
    if found is None:
        message = f"Organization not found: '{org_id}'."
        return JSONResponse({"message": message, "code": "entity_not_found", "entity_id": org_id}, status_code=404)
    return JSONResponse(_json(found))


def _json(organization: Organization) -> dict[str, object]:
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
