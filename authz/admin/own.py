"""What this very process has to tell the page."""

import math
import os
from typing import Any

from authz.admin.activity import Activity
from authz.admin.explain import explain, known_of
from authz.admin.source import Json, Order, Orders, Question
from authz.authorizer import Authorizer
from authz.keys import KeySetHealth
from authz.policy import Policy
from authz.policy.explain import conditions_of, list_of_rule, rules_of
from authz.policy.organizations import STRANGER

MAX_ORGANIZATIONS_TOLD = 200
MAX_RULES_TOLD = 1000
MAX_NAMES_TOLD = 200


class OwnProcess:
    """This process as a :class:`authz.admin.source.Source`.

    Args:
        authorizer: the judge.
        activity: its observer.
        worker: which of several workers this is.

    """

    def __init__(self, authorizer: Authorizer, activity: Activity, *, worker: int = 0) -> None:
        self._authorizer, self._activity, self._worker = authorizer, activity, worker
        self._orders = Orders()
        self._described: tuple[Policy | None, Json] = (None, {"policy": None})
        activity.follow(lambda: authorizer.policy)

    async def decisions(self, after: str) -> Json:
        """See :class:`authz.admin.source.Source`."""
        return self._activity.recent(after)._asdict()

    async def overview(self) -> Json:
        """See :class:`authz.admin.source.Source`."""
        activity, authorizer = self._activity, self._authorizer
        totals = activity.totals()
        return {
            "totals": totals,
            "pace": activity.pace(),
            "reasons": activity.reasons(),
            "organizations": [
                {**each, "known": self._known(each["id"])} for each in activity.organizations(MAX_ORGANIZATIONS_TOLD)
            ],
            "suspended": sorted(authorizer.suspended_organizations)[:MAX_NAMES_TOLD],
            "revoked": sorted(authorizer.revoked_clients)[:MAX_NAMES_TOLD],
            "workers": [
                {
                    "number": self._worker,
                    "pid": os.getpid(),
                    "started": activity.started,
                    "decisions": sum(totals.values()),
                    "keys": {issuer: _keys(health) for issuer, health in authorizer.verifier.health().items()},
                }
            ],
        }

    async def policy(self) -> Json:
        """See :class:`authz.admin.source.Source`."""
        since, hits = self._activity.hits()
        policy = self._authorizer.policy
        # Ten thousand organizations are looked through once, not once a look.
        if self._described[0] is not policy:
            self._described = policy, _described(policy)
        described = self._described[1]
        if policy is None:
            return described
        rules = [{**rule, **_hit(hits.get((rule["list"], rule["name"])))} for rule in described["rules"]]
        return {**described, "since": since, "rules": rules}

    async def explain(self, question: Question) -> Json:
        """See :class:`authz.admin.source.Source`."""
        return await explain(self._authorizer, question)

    async def order(self, order: Order) -> Json:
        """See :class:`authz.admin.source.Source`."""
        self._orders.note(order)
        order.carry_out(self._authorizer)
        policy = self._authorizer.policy
        known = None if policy is None else policy.organizations.get(order.id)
        return {"by_policy": known is not None and known.is_suspended, "workers": 1, "pending": 0}

    def _known(self, org_id: str) -> dict[str, str]:
        """Return what an organization is called, without asking anybody."""
        policy, directory = self._authorizer.policy, self._authorizer.directory_of(org_id)
        listed = STRANGER if policy is None else policy.organization(org_id)
        known = None if directory is None else directory.recall(org_id)
        return known_of(listed if known is None else listed.over(known), listed.quota)


def _keys(health: KeySetHealth) -> dict[str, Any]:
    return {
        "is_ready": health.is_ready,
        "keys": health.keys,
        "kids": [kid or "" for kid in health.kids],
        "age": health.age,
        # JSON knows no infinity.
        "lasts": health.lasts if math.isfinite(health.lasts) else None,
        "error": health.error,
        "fetches": health.fetches,
        "failures": health.failures,
    }


def _described(policy: Policy | None) -> Json:
    if policy is None:
        return {"policy": None}
    rules = rules_of(policy)
    suspended = sorted(org_id for org_id, known in policy.organizations.items() if known.is_suspended)
    return {
        "policy": policy.name,
        "organizations": len(policy.organizations),
        "suspended": suspended[:MAX_NAMES_TOLD],
        "suspended_count": len(suspended),
        "public": sorted(policy.public)[:MAX_NAMES_TOLD],
        "rule_count": len(rules),
        "rules": [
            {"list": list_of_rule(rule), "name": rule.name, "conditions": conditions_of(rule)}
            for rule in rules[:MAX_RULES_TOLD]
        ],
    }


def _hit(hit: tuple[int, float] | None) -> dict[str, Any]:
    return {"hits": 0, "last": None} if hit is None else {"hits": hit[0], "last": hit[1]}
