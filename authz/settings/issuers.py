"""Several issuers, as a file lists them: each with its audience, its keys and its organizations.

What stands in the list are settings by their names, with one more for each issuer, ``organizations``. A setting given
outside the file is for every issuer that does not say otherwise, as far as one could be meant for several.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from authz.errors import ConfigError
from authz.runtime.text.document import Document, Fault, Step
from authz.settings.config_file import LISTED
from authz.settings.issuer import ConnectionSettings, IntrospectionSettings, IssuerSettings
from authz.settings.outside import NOTHING, Outside

T = TypeVar("T")

PROPER = frozenset(
    {
        "audience",
        "discover_hosts",
        "introspection_client_id",
        "introspection_client_secret",
        "introspection_client_secret_file",
        "introspection_url",
        "issuer",
        "jwks",
        "jwks_seed",
        "jwks_url",
    }
)
"""Settings of one issuer alone, which are not taken for another's: addresses, keys, our credentials."""


class ListedIssuer(IntrospectionSettings):
    """What the file says of one issuer; it goes before what is set outside the file for all of them."""

    organizations: str | list[str] | None = None

    @property
    def name(self) -> str:
        """The issuer, which is never missing here."""
        return str(self.issuer)

    @classmethod
    def _read(cls, values: Mapping[str, Any]) -> Outside:  # noqa: ARG003 - the file says all
        return NOTHING


# A file of settings is copied and shown, so a secret belongs in a file of its own.
KEYS = frozenset(ListedIssuer.model_fields) - ConnectionSettings.model_fields.keys() - {"introspection_client_secret"}


@dataclass(frozen=True)
class Issuers:
    """The issuers of a file.

    Args:
        listed: what it says of each.
        are_organizations_shared: whether each may name the organizations of all others.
        document: the file.

    """

    listed: tuple[ListedIssuer, ...]
    are_organizations_shared: bool
    document: Document

    def made(self, make: Callable[[ListedIssuer], T]) -> list[T]:
        """Return what ``make`` makes of each issuer.

        Raises:
            ConfigError: ``make`` raised it; the message says where in the file the issuer stands.

        """
        found = []
        for index, each in enumerate(self.listed):
            try:
                found.append(make(each))
            except ConfigError as error:
                raise self.document.error(_fault(str(error), index, self.document.data["issuers"][index])) from None
        return found

    @property
    def organizations(self) -> Mapping[str, str | list[str]] | None:
        """Which organizations each issuer may name; ``None`` if the file says that of none."""
        return {each.name: each.organizations for each in self.listed if each.organizations is not None} or None

    def of_profile(self, name: str) -> list[str]:
        """Return the issuers that write their tokens in one way."""
        return [each.name for each in self.listed if each.token_profile == name]

    def urls(self) -> Iterable[str]:
        """Yield every address that may be asked, but for those that metadata names."""
        for each in self.listed:
            yield from filter(None, (each.issuer, each.jwks_url, each.introspection_url))

    def in_words(self) -> list[str]:
        """Describe each issuer in a line: its audience, and the organizations that it may name."""
        return [
            f"{each.issuer} (audience {', '.join(each.audience or ())}; organizations "
            f"{'shared' if self.are_organizations_shared else _in_words(each.organizations)})"
            for each in self.listed
        ]


def issuers_of(document: Document, outside: IssuerSettings) -> Issuers:
    """Return the issuers that a file lists, which may be the file of settings itself.

    Args:
        document: the file.
        outside: the settings besides.

    Raises:
        ConfigError: something in it is wrong, or a setting given outside is of one issuer.

    """
    given = {name: getattr(outside, name) for name in outside.model_fields_set}
    for name in sorted(PROPER & given.keys()):
        raise ConfigError(f"{name}: belongs into the list of issuers, for one of them; remove {outside.origin(name)}")
    common = {name: value for name, value in given.items() if name in IntrospectionSettings.model_fields}
    try:
        return _issuers(document, common)
    except Fault as fault:
        raise document.error(fault) from None


def _issuers(document: Document, common: Mapping[str, Any]) -> Issuers:
    data = document.data
    if not isinstance(data, dict):
        raise Fault("must be a mapping with the key issuers")
    _check_keys(data, LISTED)
    entries, is_shared = data.get("issuers"), data.get("shared_organizations", False)
    if not isinstance(entries, list) or not entries:
        raise Fault("issuers: must be a list with one entry for each issuer", *_there(data, "issuers"))
    if not isinstance(is_shared, bool):
        raise Fault("shared_organizations: must be true or false", "shared_organizations")
    listed: list[ListedIssuer] = []
    for index, entry in enumerate(entries):
        each = _listed(entry, index, common)
        if any(each.issuer == other.issuer for other in listed):
            raise Fault(f"issuer: {each.issuer!a} is listed twice", "issuers", index, "issuer")
        if is_shared and each.organizations is not None:
            raise Fault(
                "organizations: shared_organizations lets each issuer name all of them; give one of both",
                *("issuers", index, "organizations"),
            )
        if not is_shared and len(entries) > 1 and not each.organizations:
            raise Fault(
                "organizations: missing; give the issuer a pattern or a list of the ids that it may name, or have "
                "shared_organizations: true for issuers that may name the same",
                *("issuers", index),
            )
        listed.append(each)
    return Issuers(tuple(listed), is_shared, document)


def _listed(entry: Any, index: int, common: Mapping[str, Any]) -> ListedIssuer:
    if not isinstance(entry, dict):
        raise Fault("an issuer must be a mapping of settings", "issuers", index)
    if "introspection_client_secret" in entry:
        raise Fault(
            "introspection_client_secret: no secret stands here; name a file: introspection_client_secret_file",
            *("issuers", index, "introspection_client_secret"),
        )
    _check_keys(entry, sorted(KEYS), "issuers", index)
    for name in ("issuer", "audience"):
        if not entry.get(name):
            raise Fault(f"{name}: missing", "issuers", index)
    try:
        return ListedIssuer(**{**common, **entry})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _fault(f"{first['loc'][0]}: {first['msg']}", index, entry) from None


def _check_keys(entry: Mapping[str, Any], known: Iterable[str], *path: Step) -> None:
    for key in entry:
        if key not in known:
            [nearest] = difflib.get_close_matches(key, list(known), n=1, cutoff=0)
            raise Fault(f"{key!a}: no such key; the nearest is {nearest}", *path, key)


def _fault(message: str, index: int, entry: Mapping[str, Any]) -> Fault:
    return Fault(message, "issuers", index, *_there(entry, message.partition(":")[0]))


def _there(entry: Mapping[str, Any], key: str) -> tuple[Step, ...]:
    return (key,) if key in entry else ()


def _in_words(organizations: str | list[str] | None) -> str:
    if organizations is None:
        return "any"
    return organizations if isinstance(organizations, str) else ", ".join(organizations)
