"""Which issuer an organization belongs to, if several issuers are trusted: its id alone decides."""

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType

from authz.call.principal import Principal
from authz.call.words import is_identifier
from authz.errors import ClaimError, ConfigError

Organizations = str | Collection[str]
"""Which organizations an issuer may name: a regular expression that the whole ``org_id`` must match, or a list."""


class Ownership:
    """Say which issuer an organization belongs to.

    It belongs to the issuer that lists it, else to the one issuer whose pattern it matches. An id that several
    patterns match, and no issuer lists, belongs to none. So every id is admitted from at most one issuer, and code that
    goes by the id alone, here or in a backend, cannot confuse the organizations of two issuers.

    Args:
        organizations: what each issuer may name, by issuer.

    Raises:
        ConfigError: a pattern or a list is not valid, or two issuers list the same organization.

    """

    def __init__(self, organizations: Mapping[str, Organizations]) -> None:
        self.issuers = frozenset(organizations)
        listed: dict[str, str] = {}
        self._patterns: list[tuple[str, re.Pattern[str]]] = []
        for issuer, named in organizations.items():
            if isinstance(named, str):
                self._patterns.append((issuer, _pattern(named, issuer)))
                continue
            for org_id in _ids(named, issuer):
                if org_id in listed:
                    raise ConfigError(f"organizations: {org_id!a} is listed for both {listed[org_id]} and {issuer}")
                listed[org_id] = issuer
        self._listed: Mapping[str, str] = MappingProxyType(listed)

    def owner_of(self, org_id: str) -> str | None:
        """Return the issuer that an organization belongs to; ``None`` if it belongs to none."""
        owner = self._listed.get(org_id)
        if owner is not None:
            return owner
        owners = [issuer for issuer, pattern in self._patterns if pattern.fullmatch(org_id)]
        return owners[0] if len(owners) == 1 else None

    def check(self, principal: Principal) -> None:
        """Check that the organization of ``principal`` belongs to the issuer of ``principal``.

        Raises:
            ClaimError: it does not.

        """
        if self.owner_of(principal.org_id) != principal.issuer:
            raise ClaimError("org_id", "the organization belongs to another issuer, or to none")


def _pattern(pattern: str, issuer: str) -> re.Pattern[str]:
    if not pattern:
        raise ConfigError(f"organizations: the pattern of {issuer} is empty, so it would match no organization")
    try:
        return re.compile(pattern, re.ASCII)
    except re.error as error:
        raise ConfigError(
            f"organizations: {pattern!a} of {issuer} is not a regular expression ({error.msg})"
        ) from error


def _ids(named: Collection[object], issuer: str) -> list[str]:
    try:
        given = frozenset(named)
    except TypeError:
        raise ConfigError(f"organizations: give {issuer} a pattern or a list of ids, not {named!a}") from None
    if not given:
        raise ConfigError(f"organizations: the list of {issuer} is empty, so it would match no organization")
    ids = []
    for org_id in given:
        if not isinstance(org_id, str) or not is_identifier(org_id):
            raise ConfigError(f"organizations: {org_id!a}, listed for {issuer}, is not the id of an organization")
        ids.append(org_id)
    return ids
