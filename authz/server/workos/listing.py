"""The loop that lists the applications of WorkOS, which tells of no deletion: what is listed no more is refused.

Nothing follows from a list that is not whole, from an application that WorkOS still has when it is asked about it, or
from the list of another environment. So a page that fails, and a key that is another's, refuse no application.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Protocol

from authz.judge.orders.order import Order
from authz.runtime import telemetry
from authz.runtime.asking import NoAnswerError
from authz.runtime.backoff import Backoff
from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.runtime.threads import Repeating
from authz.server.admin.slices import LONG_SLICE, in_slices
from authz.server.workos.applications import Application, ApplicationPage, pardons, refusals
from authz.server.workos.events import WORKOS

# Between two questions: WorkOS takes 100 requests a second from an address.
_PACE_SECONDS = 0.05
# How often a process that does not lead looks whether it does.
_LOOK_SECONDS = 2.0
_LONGEST_PAUSE = 60.0
# How many organizations are asked about to learn whether the environment is the same.
_PROOFS = 3


class Source(Protocol):
    """What knows the applications, see :class:`authz.server.workos.applications_api.ApplicationsApi`."""

    def page(self, after: str) -> ApplicationPage:
        """Return the next applications."""

    def has_application(self, name: str) -> bool:
        """Say whether there is an application of this id of the API."""

    def has_organization(self, org_id: str) -> bool:
        """Say whether there is an organization of this id."""

    def close(self) -> None:
        """End what is under way."""


class Register(Protocol):
    """Keeps the applications that are known, and has orders kept."""

    def known(self) -> Mapping[str, Application]:
        """Return the applications that are known, by client id.

        Raises:
            PlaceError: that cannot be known.

        """

    def standing(self) -> Sequence[Order]:
        """Return the orders about applications that are in force."""

    def keep(self, orders: Sequence[Order], applications: Mapping[str, Application]) -> None:
        """Put orders in force, and then keep these applications in the place of those that were known.

        Raises:
            PlaceError: not all is kept; to do it again does no harm.

        """


class WorkOSApplications:
    """Lists the applications on a thread, from ``start`` to ``stop``; of several replicas the one that leads does.

    Args:
        api: knows the applications.
        register: keeps what is known of them.
        leads: says whether this process is the one that lists them.
        name: is told what they are called by now, by client id; an empty name is of one that is gone.
        interval: seconds between two lists.
        issuer: the issuer of WorkOS, if the applications of others may have the same ids.
        clock: tells the time.

    Attributes:
        issuer: that of the argument.
        known: the applications by client id, as far as they are known here.
        refused: how many applications were refused because WorkOS has them no more.
        lists: how many whole lists there were.
        error: why there is no list, or nothing follows from it; empty if all is well.

    """

    def __init__(
        self,
        api: Source,
        register: Register,
        *,
        leads: Callable[[], bool],
        name: Callable[[Mapping[str, str]], object] = bool,
        interval: float = 300.0,
        issuer: str = "",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._api, self._register, self._leads, self._name = api, register, leads, name
        self._interval, self.issuer, self._clock = interval, issuer, clock
        self.known: Mapping[str, Application] = {}
        self.refused = self.lists = 0
        self.error = ""
        self._round: _Round | None = None
        self._pause = Backoff(last=_LONGEST_PAUSE)
        self._ask_at = self._read_at = -math.inf
        self._listed_at = clock.now()
        self._thread = Repeating("authz-workos-applications", self.work)
        self.start = self._thread.start

    @property
    def age(self) -> float:
        """Seconds since the last whole list here, or since there is this object."""
        return self._clock.since(self._listed_at)

    def stop(self) -> None:
        """Stop listing."""
        # Whatever it waits for ends.
        self._api.close()
        self._thread.stop()
        self._api.close()

    def work(self) -> float:
        """Take the next step if it is time, and return after how many seconds there is another."""
        now = self._clock.monotonic()
        if now >= self._ask_at:
            try:
                self._ask_at = now + (self._step() if self._leads() else self._follow())
            except NoAnswerError as failure:
                self._failed(failure)
        return max(0.0, self._ask_at - self._clock.monotonic())

    def _follow(self) -> float:
        self._round, self.error = None, ""
        now = self._clock.monotonic()
        if now >= self._read_at or not self.known:
            # As seldom as there is a list: there may be ten thousand applications, and a thousand replicas.
            self._read_at = now + self._interval
            self._know(self._register.known())
        return _LOOK_SECONDS

    def _step(self) -> float:
        if self._round is None:
            known = self._register.known()
            if not self.known:
                # What they are called is known before they are listed.
                self._know(known)
            self._round = _Round(known)
        this = self._round
        if not this.is_whole:
            this.take(self._api.page(this.after))
            return _PACE_SECONDS
        if this.doubtful and not this.unread:
            return self._settle(this)
        self._finish(this)
        return self._interval

    def _settle(self, this: "_Round") -> float:
        """Ask about one application that is listed no more, or first whether this is the environment that it was in."""
        if not this.is_same_environment:
            for org_id in this.organizations():
                if self._api.has_organization(org_id):
                    this.is_same_environment = True
                    break
            else:
                raise NoAnswerError("another environment (none of the known applications is in it)", is_ours=True)
        client_id, application = this.doubtful.popitem()
        if self._api.has_application(application.id):
            this.listed[client_id] = application
        else:
            this.deleted.append(client_id)
        return _PACE_SECONDS

    def _finish(self, this: "_Round") -> None:
        now = self._clock.time()
        # What cannot be read may be any of those that are missing.
        applications = {**this.doubtful, **this.listed}
        orders = refusals(this.deleted, now, self.issuer)
        orders += pardons(self._register.standing(), applications, now)
        self._register.keep(orders, applications)
        self._round = None
        self._know(applications)
        self.refused += len(this.deleted)
        self.lists += 1
        self._listed_at = self._clock.now()
        self._pause.succeeded()
        error = f"unread ({this.unread} applications of an unknown form)" if this.unread else ""
        if error and error != self.error:
            telemetry.event(telemetry.WARNING, "applications_unread", source=WORKOS, applications=this.unread)
        elif self.error and not error:
            telemetry.event(telemetry.INFO, "applications_recovered", source=WORKOS)
        self.error = error

    def _know(self, applications: Mapping[str, Application]) -> None:
        """Know these, and tell what they are called as far as that is news."""
        before, self.known = self.known, applications
        gone = (each._replace(name="") for each in before.values() if each.client_id not in applications)
        news: dict[str, str] = {}
        for each in in_slices(chain(gone, applications.values()), LONG_SLICE):
            known = before.get(each.client_id)
            if each.name != ("" if known is None else known.name):
                news[each.client_id] = each.name
            if len(news) >= LONG_SLICE:
                self._name(news)
                news = {}
        if news:
            self._name(news)

    def _failed(self, failure: NoAnswerError) -> None:
        cause = str(failure)
        if failure.is_about_one or failure.is_ours:
            # Where the page before has ended is gone, or nothing follows from this list: from the beginning.
            self._round = None
        self._pause.failed(self._clock.monotonic(), at_least=failure.pause)
        self._ask_at = self._pause.retry_at
        if cause != self.error:
            level = telemetry.ERROR if failure.is_ours else telemetry.WARNING
            telemetry.event(level, "applications_failed", source=WORKOS, error=cause)
        self.error = cause


class _Round:
    """One list of all applications, as far as it has come.

    Args:
        known: the applications that were known before.

    """

    def __init__(self, known: Mapping[str, Application]) -> None:
        self._known = known
        self.listed: dict[str, Application] = {}
        self.deleted: list[str] = []
        self.doubtful: dict[str, Application] = {}
        self.after, self.unread = "", 0
        self._places: set[str] = set()
        self.is_whole = False
        self.is_same_environment = False

    def take(self, page: ApplicationPage) -> None:
        """Take in a page."""
        if page.after in self._places:
            # There would be no end.
            raise NoAnswerError("not applications", is_about_one=True)
        if page.after:
            self._places.add(page.after)
        self.listed.update((each.client_id, each) for each in page.applications)
        self.unread += page.unread
        self.after = page.after
        if not page.after:
            self.is_whole = True
            self.doubtful = {name: each for name, each in self._known.items() if name not in self.listed}
            self.is_same_environment = len(self.doubtful) < len(self._known)

    def organizations(self) -> list[str]:
        """Return a few organizations of those that are listed no more."""
        return list(dict.fromkeys(each.org_id for each in self.doubtful.values() if each.org_id))[:_PROOFS]
