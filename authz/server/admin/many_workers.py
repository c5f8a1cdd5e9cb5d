"""What several workers together tell the page: the supervisor asks all of them, and adds up their answers."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterable
from typing import Any, Self

from authz.errors import UnavailableError
from authz.server.admin.backend import Json, Order, Orders, Question
from authz.server.admin.one_process import MAX_ORGANIZATIONS_TOLD
from authz.server.admin.worker_link import WorkerLink, link_to_worker

ANSWER_SECONDS = 2.0
"""How long the page waits for a worker."""


class Workers:
    """Several workers as one :class:`authz.server.admin.backend.Source`.

    An asynchronous context manager, which ends all links.
    Workers that do not answer in time are left out; ``silent`` in the answer says how many.

    Args:
        patience: seconds that the answer of a worker may take.

    """

    def __init__(self, *, patience: float = ANSWER_SECONDS) -> None:
        self._patience = patience
        self._links: list[WorkerLink] = []
        self._orders = Orders()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for link in list(self._links):
            await link.close()

    @contextlib.asynccontextmanager
    async def link(self, number: int) -> AsyncIterator[tuple[socket.socket, WorkerLink]]:
        """Yield the socket for a worker that is about to start, and the supervisor's end of the link."""
        ours, its = socket.socketpair()
        with its:
            link = await link_to_worker(number, ours, self._forget, patience=self._patience)
            # Without an await in between: this worker must be told of every later order as well.
            link.tell(self._orders.in_force())
            self._links.append(link)
            yield its, link

    async def decisions(self) -> Json:
        """See :class:`authz.server.admin.backend.Source`."""
        answers, _ = await self._ask("decisions")
        decisions = [decision for answer in answers for decision in answer["decisions"]]
        return {
            "decisions": sorted(decisions, key=lambda decision: decision["time"]),
            "cursor": ",".join(answer["cursor"] for answer in answers),
        }

    async def overview(self) -> Json:
        """See :class:`authz.server.admin.backend.Source`."""
        answers, silent = await self._ask("overview")
        return {
            "totals": _sum(answer["totals"] for answer in answers),
            "pace": _pace(answers),
            "reasons": _by_name("reason", (each for answer in answers for each in answer["reasons"])),
            "organizations": _organizations(answers),
            # From the worker that knows most: one that is starting may not have been told yet.
            "suspended": max((answer["suspended"] for answer in answers), key=len, default=[]),
            "revoked": max((answer["revoked"] for answer in answers), key=len, default=[]),
            "workers": sorted((each for answer in answers for each in answer["workers"]), key=_number),
            "silent": silent,
        }

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
        for link in self._ready():
            answer = await link.ask("explain", question)
            if answer is not None:
                return answer
        raise UnavailableError

    async def order(self, order: Order) -> Json:
        """See :class:`authz.server.admin.backend.Source`."""
        self._orders.note(order)
        # All workers, including those that are starting.
        answers, silent = await _answers(self._links, "order", order)
        by_policy = any(answer["by_policy"] for answer in answers)
        return {"by_policy": by_policy, "workers": len(answers), "pending": silent}

    async def _ask(self, what: str, *arguments: Any) -> tuple[list[Json], int]:
        return await _answers(self._ready(), what, *arguments)

    def _ready(self) -> list[WorkerLink]:
        return [link for link in self._links if link.is_ready]

    def _forget(self, link: WorkerLink) -> None:
        with contextlib.suppress(ValueError):
            self._links.remove(link)


async def _answers(links: list[WorkerLink], what: str, *arguments: Any) -> tuple[list[Json], int]:
    """Return the answers of the workers, and how many gave none."""
    answers = await asyncio.gather(*(link.ask(what, *arguments) for link in links))
    given = [answer for answer in answers if answer is not None]
    return given, len(answers) - len(given)


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
