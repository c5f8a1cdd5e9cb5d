"""The latest decisions and how many there were: kept within bounds, and read when an operator looks at the page."""

import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from authz.decisions.decision import MAX_METHOD, RECORDED_VERB, Decision
from authz.policy import Policy
from authz.policy.explain.explanation import list_of
from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.server.admin.slices import LONG_SLICE, in_slices

RECENT = 1000
"""How many decisions to allow are kept, and how many to refuse: a flood of one kind cannot displace the other."""

MAX_ORGANIZATIONS = 1000
"""How many organizations are counted one by one; the one that has not called for longest makes room."""

MAX_CLIENTS = 16
"""How many applications of an organization are counted one by one."""

MAX_TOLD = 200
"""How many decisions of either kind one answer has at most: the newest."""

BUCKET_SECONDS, BUCKETS = 5, 60
"""How long one period of the pace is, and how many periods are kept."""

_ALLOWED, _FAILED, _LAST, _CLIENTS = 0, 3, 4, 5
_COLUMN = {"allowed": _ALLOWED, "denied": 1, "undecided": 2, "failed": _FAILED}

_FIELDS = (
    *("sequence", "time", "event", "method", "verb", "verdict", "reason", "organization", "client"),
    *("client_name", "policy", "rule", "source", "order_source", "seconds"),
)


class Recent(NamedTuple):
    """The newest decisions.

    Args:
        decisions: plain data, the oldest first.
        cursor: which decision was the last; see :class:`authz.server.admin.news.News`.

    """

    decisions: list[dict[str, Any]]
    cursor: str


class Activity:
    """Keep what the page shows of decisions; an observer of the authorizer.

    It keeps no tokens, and of their claims only organization and client.

    Args:
        policy: returns the policy in force. Its rules are counted from the time when it came into force.
        clock: tells the time.

    """

    def __init__(self, policy: Callable[[], Policy | None] = lambda: None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.started = clock.time()
        self._clock = clock
        self._policy, self._counted = policy, policy()
        self._since = self.started
        # A cursor of another process, or of a predecessor, must not be taken for one of this process.
        self._origin = secrets.token_hex(4)
        self._lock = threading.Lock()
        self._sequence = 0
        self._allowed: deque[tuple[Any, ...]] = deque(maxlen=RECENT)
        self._refused: deque[tuple[Any, ...]] = deque(maxlen=RECENT)
        self._totals = [0, 0, 0, 0]
        self._reasons: dict[str, list[Any]] = {}
        self._organizations: OrderedDict[str, list[Any]] = OrderedDict()
        self._hits: dict[tuple[str, str], list[Any]] = {}
        self._pace: dict[int, list[int]] = {}

    def follow(self, policy: Callable[[], Policy | None]) -> None:
        """Count the rules of the policy that ``policy`` returns; for when the authorizer exists."""
        self._policy, self._counted = policy, policy()

    def __call__(self, decision: Decision) -> None:
        """Take in one decision, on the thread that decides: all work that can wait is left for later."""
        call, evidence, refusal, seconds, _, event, time, _, client_name = decision
        principal, rule = evidence.principal, evidence.rule
        organization, client = principal.org_id, principal.client_id
        verdict, reason, kept = "allowed", "", self._allowed
        if refusal is not None:
            verdict, reason, kept = decision.verdict, refusal.reason, self._refused
        column = _COLUMN[verdict]
        with self._lock:
            self._sequence += 1
            kept.append(
                (
                    *(self._sequence, time, event, call.method[:MAX_METHOD], call.verb[:RECORDED_VERB]),
                    *(verdict, reason, organization, client, client_name, evidence.policy, rule, evidence.source),
                    *(evidence.order_source, seconds),
                )
            )
            self._totals[column] += 1
            self._count_pace(int(time) // BUCKET_SECONDS, 0 if refusal is None else 1)
            if refusal is not None:
                tally = self._reasons.setdefault(reason, [0, 0.0, ""])
                tally[0] += 1
                tally[1:] = time, organization
            if organization:
                self._count_organization(organization, client, column, time)
            if rule:
                self._count_rule(rule, reason, time)

    def recent(self) -> Recent:
        """Return the newest decisions to allow and the newest to refuse, in the order in which they were made."""
        with self._lock:
            allowed, refused, last = list(self._allowed), list(self._refused), self._sequence
        newest = [*allowed[-MAX_TOLD:], *refused[-MAX_TOLD:]]
        newest.sort()
        return Recent([_told(one, self._origin) for one in in_slices(newest)], f"{self._origin}-{last}")

    def totals(self) -> dict[str, int]:
        """Return how many decisions of each kind there were."""
        return dict(zip(_COLUMN, self._totals, strict=True))

    def reasons(self) -> list[dict[str, Any]]:
        """Return the reasons of refusals: how often each occurred, when last, and the organization of the last call."""
        with self._lock:
            tallies = [(reason, *tally) for reason, tally in self._reasons.items()]
        names = ("reason", "count", "last", "organization")
        return [dict(zip(names, tally, strict=True)) for tally in tallies]

    def organizations(self, at_most: int) -> list[dict[str, Any]]:
        """Return the organizations that have called, the latest caller first."""
        with self._lock:
            newest = [(org_id, [*tally[:_CLIENTS], dict(tally[_CLIENTS])]) for org_id, tally in self._latest(at_most)]
        names = (*_COLUMN, "last", "clients")
        return [{"id": org_id, **dict(zip(names, tally, strict=True))} for org_id, tally in newest]

    def pace(self) -> list[tuple[int, int, int]]:
        """Return the POSIX second at which each period began, and how many calls were allowed and refused in it."""
        with self._lock:
            return [
                (bucket * BUCKET_SECONDS, allowed, refused) for bucket, (allowed, refused) in sorted(self._pace.items())
            ]

    def hits(self) -> tuple[float, dict[tuple[str, str], tuple[int, float]]]:
        """Return since when rules are counted; and of each that decided, by list and name, how often and when last."""
        with self._lock:
            self._renew_policy(self._clock.time())
            since, hits = self._since, list(self._hits.items())
        return since, {rule: (count, last) for rule, (count, last) in in_slices(hits, LONG_SLICE)}

    def _latest(self, at_most: int) -> Iterable[tuple[str, list[Any]]]:
        for org_id in reversed(self._organizations):
            if at_most <= 0:
                return
            at_most -= 1
            yield org_id, self._organizations[org_id]

    def _count_pace(self, bucket: int, column: int) -> None:
        counts = self._pace.get(bucket)
        if counts is None:
            counts = self._pace[bucket] = [0, 0]
            while len(self._pace) > BUCKETS:
                del self._pace[min(self._pace)]
        counts[column] += 1

    def _count_organization(self, organization: str, client: str, column: int, time: float) -> None:
        tally = self._organizations.get(organization)
        if tally is None:
            tally = self._organizations[organization] = [0, 0, 0, 0, 0.0, {}]
            if len(self._organizations) > MAX_ORGANIZATIONS:
                self._organizations.popitem(last=False)
        self._organizations.move_to_end(organization)
        tally[column] += 1
        tally[_LAST] = time
        clients = tally[_CLIENTS]
        if client in clients or len(clients) < MAX_CLIENTS:
            clients[client] = clients.get(client, 0) + 1

    def _count_rule(self, rule: str, reason: str, time: float) -> None:
        if self._policy() is not self._counted:
            self._renew_policy(time)
        # A call that an allow rule admitted may be refused later, for a reason that is not the policy's.
        of_list = list_of(rule, is_deny=reason == "policy_denied")
        hit = self._hits.setdefault((of_list, rule), [0, 0.0])
        hit[0] += 1
        hit[1] = time

    def _renew_policy(self, time: float) -> None:
        policy = self._policy()
        if policy is not self._counted:
            self._counted, self._since = policy, time
            self._hits.clear()


def _told(kept: tuple[Any, ...], origin: str) -> dict[str, Any]:
    told = dict(zip(_FIELDS, kept, strict=True))
    told["id"] = f"{origin}-{told.pop('sequence')}"
    told["milliseconds"] = round(told.pop("seconds") * 1e3, 3)
    return told
