"""The WorkOS environment of the development issuer: what is in it now, and what has happened to it."""

import dataclasses
import threading
from collections.abc import Callable, Mapping
from typing import Any

from authz.demo.issuer.directory import Directory, Organization
from authz.demo.issuer.events import Event, EventName, Events


class Environment:
    """Organizations and applications that may change; safe to share between threads.

    Args:
        directory: what is in it at first.
        clock: POSIX time in seconds.

    Attributes:
        directory: what is in it now.
        events: what has happened to its organizations. WorkOS has no events about applications.

    """

    def __init__(self, directory: Directory, *, clock: Callable[[], float]) -> None:
        self.directory = directory
        self.events = Events()
        self._clock = clock
        self._lock = threading.Lock()
        self._watchers: list[Callable[[Event], object]] = []

    def watch(self, told: Callable[[Event], object]) -> None:
        """Have ``told`` called with every event from now on, in their order; it must not block."""
        self._watchers.append(told)

    def create_organization(self, organization: Organization) -> None:
        """Add an organization.

        Raises:
            ValueError: there is one of its id, or an application of one of its client ids.

        """
        with self._lock:
            known = self.directory
            clients = {application.client_id for application in known.applications}
            if any(organization.id == each.id for each in known.organizations) or any(
                application.client_id in clients for application in organization.applications
            ):
                raise ValueError("an id that is there already")
            self.directory = dataclasses.replace(known, organizations=(*known.organizations, organization))
            self._tell("organization.created", organization)

    def update_organization(self, org_id: str, changes: Mapping[str, Any]) -> Organization:
        """Change fields of an organization, and return it.

        Raises:
            LookupError: there is none of that id.

        """
        with self._lock:
            changed = dataclasses.replace(self._organization(org_id), **changes)
            self._put(org_id, changed)
            self._tell("organization.updated", changed)
        return changed

    def delete_organization(self, org_id: str) -> None:
        """Take away an organization with its applications.

        Raises:
            LookupError: there is none of that id.

        """
        with self._lock:
            deleted = self._organization(org_id)
            self._put(org_id, None)
            self._tell("organization.deleted", deleted)

    def delete_application(self, client_id: str) -> None:
        """Take away an application.

        Raises:
            LookupError: there is none of that client id.

        """
        with self._lock:
            application = self.directory.application(client_id)
            if application is None:
                raise LookupError("no application of that client_id")
            organization = self._organization(application.org_id)
            left = tuple(each for each in organization.applications if each is not application)
            self._put(organization.id, dataclasses.replace(organization, applications=left))

    def _organization(self, org_id: str) -> Organization:
        found = self.directory.organization(org_id)
        if found is None:
            raise LookupError("no organization of that id")
        return found

    def _put(self, org_id: str, organization: Organization | None) -> None:
        put = (organization if known.id == org_id else known for known in self.directory.organizations)
        organizations = tuple(known for known in put if known is not None)
        self.directory = dataclasses.replace(self.directory, organizations=organizations)

    def _tell(self, name: EventName, organization: Organization) -> None:
        event = self.events.add(name, organization, self._clock())
        for told in self._watchers:
            told(event)
