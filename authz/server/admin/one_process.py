"""What this process tells the page, as the only one or as one of several workers."""

import asyncio
import heapq
import math
import os
from typing import Any

from authz.decisions.sample import Sample
from authz.issuer.keys import KeySetHealth
from authz.judge.authorizer import Authorizer
from authz.judge.orders.order import Order
from authz.policy import Policy
from authz.policy.explain.explanation import conditions_of, list_of_rule, rules_of
from authz.runtime.network.causes import meaning
from authz.server.admin.activity import Activity
from authz.server.admin.backend import Json, Question
from authz.server.admin.explain import explain, known_of
from authz.server.admin.naming import names_for, ordered, organization_of, with_applications
from authz.server.admin.news import with_others
from authz.server.admin.orders import told_of
from authz.server.admin.slices import LONG_SLICE, encoded, in_slices
from authz.server.shared_orders import SharedOrders

MAX_ORGANIZATIONS_TOLD = 200
MAX_RULES_TOLD = 1000
MAX_NAMES_TOLD = 200


class OwnProcess:
    """This process as a :class:`authz.server.admin.backend.Source`.

    Args:
        authorizer: the judge.
        activity: its observer.
        worker: the number of this process, if it is one of several workers.
        shared: what shares the orders with other replicas, in the process that has the page.
        sample: its observer for pages of other replicas, in a worker.

    """

    def __init__(
        self,
        authorizer: Authorizer,
        activity: Activity,
        *,
        worker: int = 0,
        shared: SharedOrders | None = None,
        sample: Sample | None = None,
    ) -> None:
        self._authorizer, self._activity, self._worker, self._shared = authorizer, activity, worker, shared
        self._sample = sample or Sample()
        self._described: tuple[Policy | None, Json] = (None, {"policy": None})
        activity.follow(lambda: authorizer.policy)

    async def decisions(self) -> Json:
        """See :class:`authz.server.admin.backend.Source`."""
        return with_others(await asyncio.to_thread(self._decisions), self._shared)

    async def overview(self) -> Json:
        """See :class:`authz.server.admin.backend.Source`."""
        return await asyncio.to_thread(self._everything)

    async def policy(self) -> Json:
        """See :class:`authz.server.admin.backend.Source`."""
        return await asyncio.to_thread(self._policy)

    async def explain(self, question: Question) -> Json:
        """See :class:`authz.server.admin.backend.Source`."""
        return await explain(self._authorizer, question)

    async def order(self, order: Order) -> Json:
        """See :class:`authz.server.admin.backend.Source`."""
        # On a thread: an order may have to be on a disk first.
        await asyncio.to_thread(self._authorizer.operator.order, order)
        by_policy = order.kind == "organization" and self._is_suspended_by_policy(order.id)
        return {"by_policy": by_policy, "workers": 1, "pending": 0}

    async def answer(self, what: str, arguments: list[Any]) -> bytes:
        """Answer a question of the supervisor, as JSON; the supervisor itself knows the orders."""
        match what:
            case "decisions":
                told = await self.decisions()
            case "overview":
                # A worker has obeyed the same orders.
                told = await asyncio.to_thread(lambda: self._overview(self._ordered(None)))
            case "policy":
                told = await self.policy()
            case "about":
                from authz.store.shared_state import about  # noqa: PLC0415 - asked only where there is a store

                told = about(self._authorizer)
            case "sample":
                told = self._sample.look(self._authorizer.verifier.clock.time())._asdict()
            case "names":
                self._authorizer.telling.client_names.learn(*arguments)
                told = {}
            case "suspends":
                told = {"by_policy": self._is_suspended_by_policy(*arguments)}
            case _:
                method, token, organization, client, scopes, verb = arguments[0]
                told = await self.explain(Question(method, token, organization, client, tuple(scopes), verb))
        # On another thread: the answer may be long.
        return await asyncio.to_thread(encoded, told)

    def _is_suspended_by_policy(self, org_id: str) -> bool:
        policy = self._authorizer.policy
        known = None if policy is None else policy.organizations.get(org_id)
        return known is not None and known.is_suspended

    def _decisions(self) -> Json:
        recent = self._activity.recent()
        names = names_for(self._authorizer, in_slices(decision["organization"] for decision in recent.decisions))
        for decision in recent.decisions:
            decision["called"] = names.get(decision["organization"], {})
        return recent._asdict()

    def _everything(self) -> Json:
        told = self._ordered(self._shared)
        return with_applications({**self._overview(told), **told}, self._shared)

    def _ordered(self, shared: SharedOrders | None) -> Json:
        return told_of(self._authorizer.operator, shared, self._authorizer.verifier.clock.time())

    def _overview(self, told: Json) -> Json:
        activity, authorizer = self._activity, self._authorizer
        totals = activity.totals()
        return {
            "names": names_for(authorizer, in_slices(ordered(told))),
            "totals": totals,
            "pace": activity.pace(),
            "reasons": activity.reasons(),
            "organizations": [
                {**each, "known": self._known(each["id"])}
                for each in in_slices(activity.organizations(MAX_ORGANIZATIONS_TOLD))
            ],
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

    def _policy(self) -> Json:
        since, hits = self._activity.hits()
        policy = self._authorizer.policy
        # Going through ten thousand organizations takes long, so it is done once for each policy.
        if self._described[0] is not policy:
            self._described = policy, _described(policy, self._authorizer)
        described = self._described[1]
        if policy is None:
            return described
        rules = [{**rule, **_hit(hits.get((rule["list"], rule["name"])))} for rule in in_slices(described["rules"])]
        return {**described, "since": since, "rules": rules}

    def _known(self, org_id: str) -> dict[str, str]:
        """Return what is known of an organization, without asking the directory."""
        policy = self._authorizer.policy
        # Only the policy has plans.
        quota = None if policy is None else policy.organization(org_id).quota
        return known_of(organization_of(self._authorizer, org_id), quota)


def _keys(health: KeySetHealth) -> dict[str, Any]:
    return {
        "is_ready": health.is_ready,
        "keys": health.keys,
        "kids": [kid or "" for kid in health.kids],
        "age": health.age,
        # JSON has no infinity.
        "lasts": health.lasts if math.isfinite(health.lasts) else None,
        "error": health.error,
        "error_means": meaning(health.error),
        "fetches": health.fetches,
        "failures": health.failures,
    }


def _described(policy: Policy | None, authorizer: Authorizer) -> Json:
    if policy is None:
        return {"policy": None}
    rules = rules_of(policy)
    suspended = [org_id for org_id, known in in_slices(policy.organizations.items(), LONG_SLICE) if known.is_suspended]
    first = heapq.nsmallest(MAX_NAMES_TOLD, in_slices(suspended, LONG_SLICE))
    return {
        "policy": policy.name,
        "organizations": len(policy.organizations),
        "suspended": first,
        "names": names_for(authorizer, first),
        "suspended_count": len(suspended),
        "public": heapq.nsmallest(MAX_NAMES_TOLD, in_slices(policy.public, LONG_SLICE)),
        "rule_count": len(rules),
        "rules": [
            {"list": list_of_rule(rule), "name": rule.name, "conditions": conditions_of(rule)}
            for rule in in_slices(rules[:MAX_RULES_TOLD])
        ],
    }


def _hit(hit: tuple[int, float] | None) -> dict[str, Any]:
    return {"hits": 0, "last": None} if hit is None else {"hits": hit[0], "last": hit[1]}
