"""The organizations of the development issuer and their applications, from a small YAML file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from authz.call.words import SCOPE
from authz.runtime.text.document import Fault, Step, read
from authz.runtime.text.schema import Schema, compiled, listed, mapping, published, record, text

DEFAULT_API_KEY = "sk_test_development"
DEFAULT_WEBHOOK_SECRET = "whsec_development"  # noqa: S105 - of a stand-in
DEFAULT_FILE = Path(__file__).with_name("organizations.yaml")

_CLIENT: dict[str, Any] = {
    "pattern": "^client_[0-9A-Za-z]{1,64}$",
    "patternErrorMessage": "not client_ and letters or digits",
    "examples": ["client_01JYACME000000000000000002"],
}
_SECRET: dict[str, Any] = {"pattern": "^[ -~]+$", "patternErrorMessage": "not printable ASCII", "writeOnly": True}
_NAME: dict[str, Any] = {"pattern": r"^[^\x00-\x1f\x7f]+$", "patternErrorMessage": "not text on one line"}
_APPLICATION = record(
    "Application",
    "A client of the issuer, bound to its organization.",
    {
        "client_id": text("Client ID", "The sub of its M2M tokens.", **_CLIENT),
        "client_secret": text("Client secret", "What it authenticates with.", **_SECRET),
        "name": text("Name", "Its name, for people.", **_NAME),
        "description": text("Description", "What it is for, for people."),
        "scopes": listed(
            "Scopes",
            "What it may ask for, and gets if it asks for none.",
            text(
                "Scope",
                pattern=f"^{SCOPE}$",
                patternErrorMessage="not a word without blanks, quotes or backslashes",
                examples=["ledger:read", "ledger:write"],
            ),
        ),
        "type": text(
            "Type",
            "m2m, the default, or oauth.",
            enum=["m2m", "oauth"],
            enumDescriptions=["It uses client_credentials.", "It signs users in; it may introspect."],
        ),
    },
    *("client_id", "client_secret", "name", "scopes"),
)
_ORGANIZATION = record(
    "Organization",
    "A company with its applications, and what the API's owner has noted about it at WorkOS.",
    {
        "id": text(
            "Id",
            "What tokens name in org_id.",
            pattern="^org_[0-9A-Za-z]{1,64}$",
            patternErrorMessage="not org_ and letters or digits",
            examples=["org_01JYACME000000000000000001"],
        ),
        "name": text("Name", "Its name, for people.", **_NAME),
        "external_id": text("External id", "The API owner's own id for it: its tenant.", examples=["tenant-acme"]),
        "metadata": mapping("Metadata", "Any other facts about it.", text("Key"), text("Value")),
        "applications": {
            "type": "array",
            "title": "Applications",
            "description": "Its applications, at least one.",
            "items": _APPLICATION,
            "minItems": 1,
        },
    },
    *("id", "name", "applications"),
)
SCHEMA: Schema = published(
    "organizations",
    record(
        "Organizations of the development issuer",
        "One WorkOS environment, made up: for authz issuer --config.",
        {
            "audience": text("Audience", "The client ID of the environment: the audience of every token.", **_CLIENT),
            "api_key": text("API key", "The key of the issuer's WorkOS API.", **_SECRET),
            "webhook_secret": text("Webhook secret", "What the issuer signs its webhooks with.", **_SECRET),
            "organizations": {
                "type": "array",
                "title": "Organizations",
                "description": "Its organizations, at least one.",
                "items": _ORGANIZATION,
                "minItems": 1,
            },
        },
        *("audience", "organizations"),
    ),
)
_check = compiled(SCHEMA)


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """A client of the issuer, bound to one organization.

    Args:
        client_id: ``client_…``; ``sub`` of its M2M tokens.
        client_secret: the secret that it authenticates with.
        name: its name, for people.
        org_id: the organization that its tokens name.
        scopes: the scopes that it may ask for, and gets if it asks for none.
        description: what it is for, for people.
        type: an ``oauth`` application signs users in; it may introspect, but not use ``client_credentials``.

    """

    client_id: str
    client_secret: str = field(repr=False)
    name: str
    org_id: str
    scopes: tuple[str, ...]
    description: str = ""
    type: Literal["m2m", "oauth"] = "m2m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """A company with its applications, and what the API's owner has noted about it at WorkOS."""

    id: str
    name: str
    applications: tuple[Application, ...]
    external_id: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """One WorkOS environment: the audience of its tokens, its organizations, and its secrets."""

    audience: str
    organizations: tuple[Organization, ...]
    api_key: str = field(default=DEFAULT_API_KEY, repr=False)
    webhook_secret: str = field(default=DEFAULT_WEBHOOK_SECRET, repr=False)

    @property
    def applications(self) -> tuple[Application, ...]:
        """Every application of every organization."""
        return tuple(application for organization in self.organizations for application in organization.applications)

    def organization(self, org_id: object) -> Organization | None:
        """Return the organization of that id, if there is one."""
        return next((known for known in self.organizations if known.id == org_id), None)

    def application(self, client_id: object) -> Application | None:
        """Return the application of that id, if there is one."""
        return next((known for known in self.applications if known.client_id == client_id), None)


def load_directory(path: Path | None = None) -> Directory:
    """Read the file ``path``, or the built-in one: JSON where the name ends in ``.json``, else YAML.

    Raises:
        ConfigError: one line that names the file, the line and what is wrong with it.

    """
    document = read(path or DEFAULT_FILE)
    try:
        _check(document.data)
        _refuse_duplicates(document.data)
    except Fault as fault:
        raise document.error(fault) from None
    data: Mapping[str, Any] = document.data
    return Directory(
        audience=data["audience"],
        organizations=tuple(map(_organization, data["organizations"])),
        api_key=data.get("api_key", DEFAULT_API_KEY),
        webhook_secret=data.get("webhook_secret", DEFAULT_WEBHOOK_SECRET),
    )


def _organization(data: Mapping[str, Any]) -> Organization:
    return Organization(
        id=data["id"],
        name=data["name"],
        applications=tuple(_application(each, data["id"]) for each in data["applications"]),
        external_id=data.get("external_id", ""),
        metadata=data.get("metadata", {}),
    )


def _application(data: Mapping[str, Any], org_id: str) -> Application:
    return Application(**{**data, "scopes": tuple(data["scopes"])}, org_id=org_id)


def _refuse_duplicates(data: Mapping[str, Any]) -> None:
    seen = {data["audience"]: "audience"}
    for value, place in _ids(data["organizations"]):
        if value in seen:
            raise Fault(f"{value} is already the {seen[value]}", *place)
        seen[value] = f"{place[-1]} of {'.'.join(map(str, place[:-1]))}"


def _ids(organizations: list[Mapping[str, Any]]) -> Iterator[tuple[str, tuple[Step, ...]]]:
    for index, organization in enumerate(organizations):
        place = ("organizations", index)
        yield organization["id"], (*place, "id")
        for number, application in enumerate(organization["applications"]):
            yield application["client_id"], (*place, "applications", number, "client_id")
