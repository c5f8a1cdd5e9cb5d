"""A program that decides calls of many organizations, and sends their counts to a store; prints what it has decided."""

import json
import random
import sys
import time
from collections import Counter
from dataclasses import replace

from authz.decisions.usage import Usage
from authz.errors import PermissionDeniedError
from authz.store.connection import Store
from authz.store.usage.writer import UsageWriter
from tests.decisions.samples import ACME, decision

ORGANIZATIONS, METHODS, SECONDS = 40, 12, 0.02


def main(url: str, seed: str, calls: str) -> None:
    choose = random.Random(seed)  # noqa: S311 - not a secret
    usage, counts = Usage(), Counter[str]()
    # A store that hangs is given up soon, so that many answers are lost.
    store = Store(url, timeout=0.2)
    writer = UsageWriter(store, usage, seconds=SECONDS)
    writer.start()
    for number in range(int(calls)):
        organization = f"org_{choose.randrange(ORGANIZATIONS)}"
        error = PermissionDeniedError() if choose.random() < 0.1 else None
        principal = replace(ACME, org_id=organization, client_id=f"client_{choose.randrange(3)}")
        made = decision(error, principal, f"/a.B/{choose.randrange(METHODS)}")
        usage(made._replace(time=time.time()))
        counts[organization] += 1
        if number % 500 == 0:
            time.sleep(0.01)
    writer.stop()
    while not writer.flush():
        time.sleep(0.01)
    print(json.dumps({"counts": counts, "coarser": writer.coarser, "unsent": writer.unsent}))  # noqa: T201 - a program


if __name__ == "__main__":
    main(*sys.argv[1:])
