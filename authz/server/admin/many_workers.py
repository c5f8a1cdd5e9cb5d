"""What several workers together tell the page: the supervisor asks all of them, and adds up their answers."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from authz.errors import UnavailableError
from authz.judge.orders.operator import Operator
from authz.judge.orders.order import Order
from authz.server.admin.backend import Json, Question
from authz.server.admin.naming import with_applications
from authz.server.admin.news import with_others
from authz.server.admin.one_process import MAX_ORGANIZATIONS_TOLD
from authz.server.admin.orders import told_of
from authz.server.admin.shapes import makes_sense
from authz.server.shared_orders import SharedOrders
from authz.server.workers.links import Links


class Workers:
    """Several workers as one :class:`authz.server.admin.backend.Source`.

    Workers that do not answer in time are left out; ``silent`` in the answer says how many.

    Args:
        links: the links to them.
        operator: takes the orders, which the links pass on.
        shared: what shares them with other replicas.

    """

    def __init__(self, links: Links, operator: Operator, shared: SharedOrders | None = None) -> None:
        self._links, self._operator, self._shared = links, operator, shared

    async def decisions(self) -> Json:
        """See :class:`authz.server.admin.backend.Source`."""
        answers, _ = await self._ask("decisions")
        decisions = [decision for answer in answers for decision in answer["decisions"]]
        told = {
            "decisions": sorted(decisions, key=lambda decision: decision["time"]),
            "cursor": ",".join(answer["cursor"] for answer in answers),
        }
        return with_others(told, self._shared)

    async def overview(self) -> Json:
        """See :class:`authz.server.admin.backend.Source`."""
        answers, silent = await self._ask("overview")
        told = {
            "totals": _sum(answer["totals"] for answer in answers),
            "pace": _pace(answers),
            "reasons": _by_name("reason", (each for answer in answers for each in answer["reasons"])),
            "organizations": _organizations(answers),
            "names": {org_id: names for answer in answers for org_id, names in answer["names"].items()},
            **await asyncio.to_thread(told_of, self._operator, self._shared, time.time()),
            "workers": sorted((each for answer in answers for each in answer["workers"]), key=_number),
            "silent": silent,
        }
        return await asyncio.to_thread(with_applications, told, self._shared)

    async def policy(self) -> Json:
        """See :class:`authz.server.admin.backend.Source`."""
        answers, _ = await self._ask("policy")
        if not answers:
            raise UnavailableError
        described = answers[0]
        if described["policy"] is None:
            return described
        # While workers are replaced one by one there may be two policies: only those of one name are added up.
        alike = [answer for answer in answers if answer["policy"] == described["policy"]]
        hits: dict[tuple[str, str], list[Json]] = {}
        for answer in alike:
            for rule in answer["rules"]:
                hits.setdefault((rule["list"], rule["name"]), []).append(rule)
        rules = [{**rule, **_hits(hits[rule["list"], rule["name"]])} for rule in described["rules"]]
        return {**described, "since": min(answer["since"] for answer in alike), "rules": rules}

    async def explain(self, question: Question) -> Json:
        """See :class:`authz.server.admin.backend.Source`."""
        # Any worker can answer; this process reads no token.
        for link in self._links.ready:
            answer = await link.ask("explain", question)
            if answer is not None and makes_sense("explain", answer):
                return answer
        raise UnavailableError

    async def order(self, order: Order) -> Json:
        """See :class:`authz.server.admin.backend.Source`."""
        # On a thread, which returns when all workers have carried it out, and it is kept.
        await asyncio.to_thread(self._operator.order, order)
        workers, pending = len(self._links.ready), self._links.pending
        answers, _ = await self._ask("suspends", order.id)
        by_policy = order.kind == "organization" and any(answer["by_policy"] for answer in answers)
        return {"by_policy": by_policy, "workers": workers, "pending": pending}

    async def _ask(self, what: str, *arguments: Any) -> tuple[list[Json], int]:
        """Return the answers of the workers that make sense, and how many gave none."""
        answers, silent = await self._links.ask(what, *arguments)
        given = [answer for answer in answers if makes_sense(what, answer)]
        return given, silent + len(answers) - len(given)


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return total


def _pace(answers: Iterable[Json]) -> list[tuple[int, int, int]]:
    total: dict[int, tuple[int, int]] = {}
    for answer in answers:
        for second, allowed, refused in answer["pace"]:
            before = total.get(second, (0, 0))
            total[second] = before[0] + allowed, before[1] + refused
    return [(second, *counts) for second, counts in sorted(total.items())]


def _by_name(name: str, tallies: Iterable[Json]) -> list[Json]:
    """Return tallies with the counts of one name added up, and other fields as in the newest."""
    total: dict[str, Json] = {}
    for tally in sorted(tallies, key=lambda tally: float(tally["last"])):
        before = total.get(tally[name])
        added = {**tally, "count": tally["count"] + before["count"]} if before is not None else tally
        total[tally[name]] = added
    return list(total.values())


def _organizations(answers: Iterable[Json]) -> list[Json]:
    total: dict[str, Json] = {}
    for each in (each for answer in answers for each in answer["organizations"]):
        before = total.get(each["id"])
        if before is None:
            total[each["id"]] = each
            continue
        verdicts = ("allowed", "denied", "undecided", "failed")
        total[each["id"]] = {
            "id": each["id"],
            **{verdict: before[verdict] + each[verdict] for verdict in verdicts},
            "last": max(before["last"], each["last"]),
            "clients": _sum((before["clients"], each["clients"])),
            # Each worker knows the organizations for which it has asked the directory.
            "known": {**before["known"], **each["known"]},
        }
    newest = sorted(total.values(), key=lambda each: float(each["last"]), reverse=True)
    return newest[:MAX_ORGANIZATIONS_TOLD]


def _hits(rules: list[Json]) -> Json:
    return {
        "hits": sum(rule["hits"] for rule in rules),
        "last": max((rule["last"] for rule in rules if rule["last"] is not None), default=None),
    }


def _number(worker: Json) -> int:
    number: int = worker["number"]
    return number
