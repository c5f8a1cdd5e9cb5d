"""The scene of the demonstration in which Envoy repeats an answer, and takes it back at once."""

import time
from collections.abc import Iterator

import httpx2

from authz.demo.partner import Answer, Metadata, authorized, request_http
from authz.demo.scenes import Expected, Row, Scenes, denied, seen
from authz.demo.stack import ADMIN_SECRET, Stack

_CALLS = 1000
_HOPS = "cluster.memo.upstream_rq_completed"
_PATIENCE_SECONDS = 60.0


def remembered(stack: Stack, scenes: Scenes) -> Iterator[Row]:
    """Make the same call many times, and then suspend its organization.

    Args:
        stack: the running processes.
        scenes: gives tokens.

    """
    acme = stack.directory.applications[0]
    metadata = authorized(scenes.token(acme))
    before = stack.proxy.count(_HOPS)
    answers = _many(stack, metadata)
    hops = stack.proxy.count(_HOPS) - before
    asked = f"asked about {hops} of them" if hops else "asked about none"
    yield Row(sent=f"{_CALLS:,} times the same call: Envoy {asked}", expected=seen(acme), through_envoy=answers)
    _order(stack, "suspend", acme.org_id)
    yield _one(stack, "Acme is suspended: the next call", metadata, denied("ORGANIZATION_SUSPENDED"))
    _order(stack, "resume", acme.org_id)
    yield _one(stack, "Acme is back", metadata, seen(acme))


def _many(stack: Stack, metadata: Metadata) -> tuple[Answer, ...]:
    headers = [(key, value) for key, value in metadata if isinstance(value, str)]
    answers = []
    with httpx2.Client(headers=headers, timeout=_PATIENCE_SECONDS, trust_env=False) as client:
        for _ in range(_CALLS):
            response = client.get(f"http://{stack.memo_target}/whoami")
            is_good = response.status_code == httpx2.codes.OK
            org_ids = frozenset([response.json()["x-org-id"]]) if is_good else frozenset[str]()
            answers.append(Answer(kind="HTTP", status=str(response.status_code), org_ids=org_ids))
    return tuple(answers)


def _one(stack: Stack, sent: str, metadata: Metadata, expected: Expected) -> Row:
    # What is ordered is in force at once; Envoy hears of it a few milliseconds later.
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        answer = request_http(f"http://{stack.memo_target}", metadata)
        if expected.matches(answer) or time.monotonic() >= deadline:
            return Row(sent=sent, expected=expected, through_envoy=(answer,))


def _order(stack: Stack, verb: str, org_id: str) -> None:
    response = httpx2.post(
        f"{stack.admin_url}api/orders",
        json={"verb": verb, "id": org_id},
        headers={"authorization": f"Bearer {ADMIN_SECRET}"},
        timeout=_PATIENCE_SECONDS,
        trust_env=False,
    )
    response.raise_for_status()
