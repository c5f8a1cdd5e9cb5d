"""The figures about usage for Prometheus: how far the store has it, and if asked for, what the largest callers use."""

import threading
from collections import Counter as Tally
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge

from authz.decisions.decision import Decision, Verdict
from authz.decisions.usage import OTHER

if TYPE_CHECKING:
    from authz.store.usage.writer import UsageWriter

# Between two looks, with a verdict each.
_MAX_CALLERS = 10_000


class UsageFigures:
    """Count the calls of organizations as an observer of the authorizer, and read the rest when Prometheus asks.

    The organizations that have figures of their own are those that came first, of those that came together the largest.
    They keep them, because a figure that comes and goes cannot be added up.

    Args:
        registry: where the figures are.
        organizations: how many organizations have figures of their own; the calls of all others are in one.
        usage: sends counts to the store, if there is one.

    """

    def __init__(self, registry: CollectorRegistry, organizations: int, usage: "UsageWriter | None") -> None:
        self._free, self._usage = organizations, usage
        self._named: set[str] = set()
        self._lock = threading.Lock()
        self._tally: Tally[tuple[str, Verdict]] = Tally()
        self._told = 0
        self._unsent = Gauge(
            "authz_usage_unsent",
            "Decisions that the store has not counted yet.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._failing = Gauge(
            "authz_usage_failing",
            "Whether the store took no counts last time.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._coarser = Counter(
            "authz_usage_coarser", "Decisions counted without client and method, for lack of room.", registry=registry
        )
        self._checks = Counter(
            "authz_organization_checks", "Checks by organization.", ["organization", "verdict"], registry=registry
        )

    @property
    def is_wanted(self) -> bool:
        """Whether decisions are to be counted by organization."""
        return self._free > 0

    def __call__(self, decision: Decision) -> None:
        """Count one decision."""
        key = decision.evidence.principal.org_id, decision.verdict
        with self._lock:
            if key not in self._tally and len(self._tally) >= _MAX_CALLERS:
                key = OTHER, decision.verdict
            self._tally[key] += 1

    def refresh(self) -> None:
        """Bring the figures up to date; not for two threads at a time."""
        with self._lock:
            tally, self._tally = self._tally, Tally()
        for (organization, verdict), count in tally.most_common():
            self._checks.labels(self._label(organization), verdict).inc(count)
        usage = self._usage
        if usage is not None:
            self._unsent.set(usage.unsent)
            self._failing.set(bool(usage.failing))
            coarser = usage.coarser
            self._coarser.inc(coarser - self._told)
            self._told = coarser

    def _label(self, organization: str) -> str:
        # A call without an organization has a label of its own anyway, and OTHER is that of all the others.
        if organization not in self._named and organization not in ("", OTHER):
            if len(self._named) >= self._free:
                return OTHER
            self._named.add(organization)
        return organization
