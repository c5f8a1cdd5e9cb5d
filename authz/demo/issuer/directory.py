"""The organizations of the development issuer and their applications, from a small YAML file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

import yaml

from authz.errors import ConfigError

DEFAULT_API_KEY = "sk_test_development"
DEFAULT_FILE = Path(__file__).with_name("organizations.yaml")

_ORGANIZATION_ID = re.compile(r"org_[0-9A-Za-z]{1,64}", re.ASCII)
_CLIENT_ID = re.compile(r"client_[0-9A-Za-z]{1,64}", re.ASCII)
_SECRET = re.compile(r"[\x20-\x7e]+", re.ASCII)
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+", re.ASCII)  # RFC 6749 section 3.3
_NAME = re.compile(r"[^\x00-\x1f\x7f]+")
_ANY_TEXT = re.compile(r".*", re.DOTALL)


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
    """One WorkOS environment: the audience of its tokens, its organizations, and its API key."""

    audience: str
    organizations: tuple[Organization, ...]
    api_key: str = field(default=DEFAULT_API_KEY, repr=False)

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
    """Read the YAML file ``path``, or the built-in one.

    Raises:
        ConfigError: one line that names the file, the key and what is wrong with it.

    """
    path = path or DEFAULT_FILE
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        _wrong(path, f"cannot be read: {error.strerror}")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        _wrong(path, f"not YAML: {error.problem}{at}")
    except (yaml.YAMLError, ValueError, RecursionError):
        # Text that is not UTF-8, characters that YAML forbids, endless nesting.
        _wrong(path, "not YAML")
    at = str(path)
    directory = _directory(_mapping(document, at, required=("audience", "organizations"), optional=("api_key",)), at)
    _refuse_duplicates(directory, at)
    return directory


def _directory(value: Mapping[str, Any], at: str) -> Directory:
    return Directory(
        audience=_text(value["audience"], f"{at}: audience", _CLIENT_ID, "client_ and letters or digits"),
        organizations=tuple(
            _organization(item, f"{at}: organizations[{index}]")
            for index, item in enumerate(_list(value["organizations"], f"{at}: organizations"))
        ),
        api_key=_text(value.get("api_key", DEFAULT_API_KEY), f"{at}: api_key", _SECRET, "printable ASCII"),
    )


def _organization(item: object, at: str) -> Organization:
    value = _mapping(item, at, required=("id", "name", "applications"), optional=("external_id", "metadata"))
    org_id = _text(value["id"], f"{at}.id", _ORGANIZATION_ID, "org_ and letters or digits")
    return Organization(
        id=org_id,
        name=_text(value["name"], f"{at}.name", _NAME, "text on one line"),
        applications=tuple(
            _application(item, f"{at}.applications[{index}]", org_id)
            for index, item in enumerate(_list(value["applications"], f"{at}.applications"))
        ),
        external_id=_text(value.get("external_id", ""), f"{at}.external_id", _ANY_TEXT, "text"),
        metadata=_texts(value.get("metadata", {}), f"{at}.metadata"),
    )


def _application(item: object, at: str, org_id: str) -> Application:
    value = _mapping(
        item, at, required=("client_id", "client_secret", "name", "scopes"), optional=("description", "type")
    )
    scopes = tuple(
        _text(scope, f"{at}.scopes[{index}]", _SCOPE, "a word without blanks, quotes or backslashes")
        for index, scope in enumerate(_list(value["scopes"], f"{at}.scopes", may_be_empty=True))
    )
    if len(set(scopes)) != len(scopes):
        _wrong(f"{at}.scopes", "names a scope twice")
    if value.get("type", "m2m") not in ("m2m", "oauth"):
        _wrong(f"{at}.type", "must be m2m or oauth")
    return Application(
        client_id=_text(value["client_id"], f"{at}.client_id", _CLIENT_ID, "client_ and letters or digits"),
        client_secret=_text(value["client_secret"], f"{at}.client_secret", _SECRET, "printable ASCII"),
        name=_text(value["name"], f"{at}.name", _NAME, "text on one line"),
        org_id=org_id,
        scopes=scopes,
        description=_text(value.get("description", ""), f"{at}.description", _ANY_TEXT, "text"),
        type=value.get("type", "m2m"),
    )


def _refuse_duplicates(directory: Directory, at: str) -> None:
    seen = {directory.audience: "audience"}
    for index, organization in enumerate(directory.organizations):
        place = f"organizations[{index}]"
        clients = [
            (application.client_id, f"{place}.applications[{number}].client_id")
            for number, application in enumerate(organization.applications)
        ]
        for value, key in ((organization.id, f"{place}.id"), *clients):
            if value in seen:
                _wrong(f"{at}: {key}", f"{value} is already the {seen[value]}")
            seen[value] = key


def _mapping(value: object, at: str, *, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        _wrong(at, f"must be a mapping with the keys {', '.join(required)}")
    for key in value:
        if key not in (*required, *optional):
            _wrong(at, f"unknown key {key!r}; known are {', '.join((*required, *optional))}")
    for key in required:
        if key not in value:
            _wrong(at, f"the key {key} is missing")
    return value


def _list(value: object, at: str, *, may_be_empty: bool = False) -> list[Any]:
    if not isinstance(value, list) or not (value or may_be_empty):
        _wrong(at, "must be a list" if may_be_empty else "must be a list of at least one")
    return value


def _texts(value: object, at: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        _wrong(at, "must be a mapping of texts")
    return {key: _text(text, f"{at}.{key}", _ANY_TEXT, "text") for key, text in value.items()}


def _text(value: object, at: str, pattern: re.Pattern[str], expected: str) -> str:
    if not isinstance(value, str):
        _wrong(at, f"must be text ({expected}); a number needs quotes")
    if not pattern.fullmatch(value):
        _wrong(at, f"must be {expected}")
    return value


def _wrong(at: object, what: str) -> NoReturn:
    raise ConfigError(f"{at}: {what}")
