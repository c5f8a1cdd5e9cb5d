"""A process that makes calls of one organization as fast as it is told to, and says how many were admitted.

``python -m tests.store.caller URL DRIVER RATE BURST SPEED SECONDS REPLICAS``: it says ``ready``, begins at a line on
its standard input, and then writes what became of the calls as JSON.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

from authz import Authorizer, Policy, Verifier
from authz.call.call import Call
from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError
from authz.runtime.flow import arun, run
from authz.store.connection import Store
from authz.store.limits import SharedLimits
from tests.doubles import AUDIENCE, ISSUER, jwks, m2m_claims

METHOD = "/authz.demo.v1.Ledger/ListEntries"


class Caller:
    """Makes calls, and counts what becomes of them."""

    def __init__(self, rate: float, burst: int) -> None:
        key = SigningKey.generate("k1", "ES256")
        plan = {"quotas": {"plan": {"requests_per_second": rate, "burst": burst}}, "default_quota": "plan"}
        self.authorizer = Authorizer(
            Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(key), algorithms=["ES256"]),
            policy=Policy.from_document({"name": "p", "allow_rules": [{"name": "all"}], **plan}),
        )
        token = key.sign(m2m_claims(time.time()))
        self.call = Call(method=METHOD, metadata=(("authorization", f"Bearer {token}"),))
        self.authorizer.verifier.verify(token)
        self.outcomes: Counter[str] = Counter()
        self.longest = 0.0

    def by_thread(self) -> None:
        began = time.monotonic()
        try:
            run(self.authorizer.authorize(self.call))
        except AuthzError as error:
            self.told(began, error.reason)
        else:
            self.told(began, "")

    async def by_task(self) -> None:
        began = time.monotonic()
        try:
            await arun(self.authorizer.authorize(self.call))
        except AuthzError as error:
            self.told(began, error.reason)
        else:
            self.told(began, "")

    def told(self, began: float, reason: str) -> None:
        self.outcomes[reason] += 1
        self.longest = max(self.longest, time.monotonic() - began)


def due(speed: float, seconds: float) -> Iterator[int]:
    """Yield how many calls have become due since the last time, until the time is over."""
    began, made = time.monotonic(), 0
    while (passed := time.monotonic() - began) < seconds:
        number = int(passed * speed) - made
        made += number
        yield number


async def by_tasks(caller: Caller, speed: float, seconds: float) -> None:
    running = set()
    for number in due(speed, seconds):
        for _ in range(number):
            task = asyncio.create_task(caller.by_task())
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.sleep(0.001)
    await asyncio.gather(*running)


def by_threads(caller: Caller, speed: float, seconds: float) -> None:
    for number in due(speed, seconds):
        for _ in range(number):
            caller.by_thread()
        time.sleep(0.001)


def main(url: str, driver: str, *numbers: float) -> None:
    rate, burst, speed, seconds, replicas = numbers
    caller = Caller(rate, int(burst))
    limits = SharedLimits(Store(url), caller.authorizer)
    limits.start()
    while limits.processes < replicas:
        time.sleep(0.01)
    drive: Callable[[], object] = (
        (lambda: by_threads(caller, speed, seconds))
        if driver == "sync"
        else (lambda: asyncio.run(by_tasks(caller, speed, seconds)))
    )
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    began = time.time()
    drive()
    ended = time.time()
    counts = dict(limits.quotas.counts)
    limits.stop()
    told = {"began": began, "ended": ended, "calls": dict(caller.outcomes), "longest": caller.longest, "leases": counts}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:]))
