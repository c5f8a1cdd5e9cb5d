"""The applications of WorkOS Connect that are known, and what follows if some of them are listed no more."""

import json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Self

from authz.call.words import is_identifier
from authz.judge.orders.order import MICROSECONDS, Order
from authz.runtime.text.printable import printable
from authz.server.workos.events import DELETED_SECONDS, WORKOS

_DELETED = "application deleted in WorkOS"
_BACK = "application is listed in WorkOS"

MAX_NAME, MAX_DESCRIPTION = 100, 300
"""How many characters are kept of what an application is called, and of what it is for."""


# As WorkOS names the fields that are told besides the client id.
_TOLD = ("id", "organization_id", "name", "description")


class Application(NamedTuple):
    """An application.

    Args:
        client_id: the ``client_id`` of its tokens.
        id: by which WorkOS's API knows it.
        org_id: its organization; empty if it has none.
        name: what an operator knows it by.
        description: what it is for.

    """

    client_id: str
    id: str
    org_id: str = ""
    name: str = ""
    description: str = ""

    @classmethod
    def of(cls, told: object) -> Self | None:
        """Return the application that an element of a list is; ``None`` if it cannot be told from others."""
        if not isinstance(told, Mapping):
            return None
        ids = told.get("client_id"), told.get("id")
        if not all(isinstance(each, str) and is_identifier(each) for each in ids):
            return None
        org_id = told.get("organization_id")
        return cls(
            str(ids[0]),
            str(ids[1]),
            org_id if isinstance(org_id, str) and is_identifier(org_id) else "",
            _text(told.get("name"), MAX_NAME),
            _text(told.get("description"), MAX_DESCRIPTION),
        )

    def text(self) -> str:
        """Return it as JSON, without its client id."""
        return json.dumps(self[1:], ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def parse(cls, client_id: str, text: str | bytes) -> Self | None:
        """Return what :meth:`text` has written; ``None`` if that did not."""
        try:
            fields: Any = json.loads(text)
        except (ValueError, RecursionError):
            return None
        is_ours = isinstance(fields, list) and len(fields) == len(_TOLD)
        # A program that can write into a store may have written anything.
        return cls.of({"client_id": client_id, **dict(zip(_TOLD, fields, strict=True))}) if is_ours else None


class ApplicationPage(NamedTuple):
    """Some of the applications, the oldest first.

    Args:
        applications: the applications.
        unread: how many more there were that cannot be read.
        after: where the next page begins; empty if there is none.

    """

    applications: list[Application]
    unread: int
    after: str


def refusals(deleted: Collection[str], now: float, issuer: str) -> list[Order]:
    """Return the orders that refuse applications which WorkOS has no more.

    Args:
        deleted: their client ids.
        now: the time, in POSIX seconds.
        issuer: the issuer of WorkOS, if the applications of others may have the same ids.

    """
    at, until = round(now * MICROSECONDS), now + DELETED_SECONDS
    return [
        Order("revoke", "client", client_id, issuer, until=until, reason=_DELETED, source=WORKOS, at=at)
        for client_id in sorted(deleted)
    ]


def pardons(standing: Collection[Order], listed: Collection[str], now: float) -> list[Order]:
    """Return the orders that take back refusals of ours, of applications that WorkOS lists after all.

    Args:
        standing: orders in force.
        listed: the client ids of all applications.
        now: the time, in POSIX seconds.

    """
    return [
        Order("reinstate", "client", each.id, each.issuer, reason=_BACK, source=WORKOS, at=max(at, each.at + 1))
        for at in [round(now * MICROSECONDS)]
        for each in standing
        if each.source == WORKOS and each.reason == _DELETED and not each.is_lifting and each.id in listed
    ]


def _text(value: object, most: int) -> str:
    """Return text in one line, of a bounded length, with every character visible; what is none is empty."""
    return printable(value[:most])[:most] if isinstance(value, str) else ""
