"""The organizations of a policy: those that its document lists, or those of a file with one on each line."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from authz.organizations.quota import Quota
from authz.policy.listing import Draft, Listing
from authz.policy.text.lines import Lines
from authz.policy.text.quotas import check_name, check_used
from authz.runtime.text.document import Document, Fault

MAX_ORGANIZATIONS = 2_000_000
"""How many organizations a policy may list."""

# About the length of a line, to begin with enough room.
_LINE_BYTES = 100


class Organizations(NamedTuple):
    """What a policy says of organizations.

    Args:
        listing: those that are listed.
        groups: all that any of them is in.
    """

    listing: Listing
    groups: frozenset[str]


def organizations_of(document: Document, quotas: Mapping[str, Quota], default: Quota | None) -> Organizations:
    """Return the organizations of a document, which has been checked against the schema.

    Args:
        document: the document.
        quotas: the plans, by name.
        default: the plan of organizations that name none.

    Raises:
        Fault: the document names a plan that does not exist, has a plan that no organization has, or names a file
            where it cannot.
        ConfigError: the file cannot be read, or something in it is wrong; the message names the line.

    """
    lines = _lines(document)
    if lines is None:
        listed: Mapping[str, Any] = document.data.get("organizations", {})
        draft = Draft(quotas, default, len(listed))
        _add_listed(draft, listed, quotas)
    else:
        draft = Draft(quotas, default, lines.size // _LINE_BYTES)
        _add_lines(draft, lines, quotas)
    check_used(quotas, draft.quotas | {document.data.get("default_quota")})
    return Organizations(draft.listing(), frozenset(draft.groups))


def _lines(document: Document) -> Lines | None:
    path = document.data.get("organizations_file")
    if path is None:
        return None
    if "organizations" in document.data:
        raise Fault("give organizations, or the file that lists them, not both", "organizations_file")
    if document.folder is None:
        raise Fault("only a policy that is read from a file may name a file beside it", "organizations_file")
    return Lines(os.path.join(document.folder, path))  # noqa: PTH118 - errors show it as it is written


def _add_listed(draft: Draft, listed: Mapping[str, Mapping[str, Any]], quotas: Mapping[str, Quota]) -> None:
    for org_id, given in listed.items():
        try:
            _add(draft, org_id, given, quotas)
        except Fault as fault:
            raise fault.within("organizations", org_id) from None


def _add_lines(draft: Draft, lines: Lines, quotas: Mapping[str, Quota]) -> None:
    for number, given in lines:
        try:
            _add(draft, given["id"], given, quotas)
        except Fault as fault:
            raise lines.error(number, fault) from None


def _add(draft: Draft, org_id: str, given: Mapping[str, Any], quotas: Mapping[str, Quota]) -> None:
    quota = given.get("quota")
    if quota is not None:
        check_name(quota, quotas, "quota")
    if draft.count == MAX_ORGANIZATIONS:
        raise Fault(f"more than {MAX_ORGANIZATIONS:,} organizations; let a directory know them")
    if not draft.add(org_id, given):
        raise Fault(f"{org_id!a} is listed twice", "id")
