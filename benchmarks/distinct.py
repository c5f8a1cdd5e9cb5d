"""What a check costs when callers have more tokens than are remembered, and what remembering more of them takes.

Each memory is measured in a process of its own. The tokens are ES256, because those are signed sooner; an RS256 token
that is not remembered costs less than one of these, as the part ``tokens`` says.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from statistics import median
from typing import NamedTuple

from authz import Authorizer, Verifier
from authz.envoy.check.servicer import AuthorizationServicer
from benchmarks.material import AUDIENCE, ISSUER, check_request, claims, signing_key
from benchmarks.processes import Server

MEMORIES = {"32 MiB": 32 << 20, "512 MiB": 512 << 20}
"""The default of ``authz serve``, if the machine has enough memory, and more than all tokens take."""

TOKENS = (1_000, 10_000, 50_000, 200_000)
WARM, DRAWS, BATCH = 20_000, 10_000, 1_000
COUNTED = 1_500
"""A token counts as so many bytes, or a few more."""

ENTRIES = 20_000
"""How many tokens are remembered to see what one takes."""

_Draw = Callable[[int], Sequence[int]]


def measure() -> dict[str, object]:
    """Return CPU of a check and share of remembered tokens, by memory, kind of draws and number; and their bytes."""
    return {
        **{f"{name}, {kind}": rows for name in MEMORIES for kind, rows in _apart("draws", name).items()},
        "bytes of a remembered token": {
            "of one application": _apart("bytes", "")["bytes"],
            "an application each": _apart("bytes", "each")["bytes"],
        },
    }


def _apart(what: str, argument: str) -> dict[str, dict[str, float]]:
    command = [sys.executable, "-m", __name__, what, argument]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - our own program
    figures: dict[str, dict[str, float]] = json.loads(result.stdout)
    return figures


class _Door(NamedTuple):
    """A judge of checks, and the memory of its verifier."""

    servicer: AuthorizationServicer
    keeper: Verifier

    @property
    def missed(self) -> int:
        """How many tokens were verified so far, for they were not remembered."""
        figures = self.keeper.memories[ISSUER].figures()
        return figures.tokens + figures.forgotten


def _door(memory: int) -> _Door:
    key = signing_key("ES256")
    jwks = {"keys": [key.public_jwk()]}
    keeper = Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks, algorithms=["ES256"], token_memory=memory)
    return _Door(AuthorizationServicer(Authorizer(keeper)), keeper)


def _draws(name: str) -> dict[str, dict[str, dict[str, float]]]:
    """Return, by how tokens are drawn and how many there are, what a check takes and which share is remembered."""
    memory, key = MEMORIES[name], signing_key("ES256")
    chance = random.Random(1)  # noqa: S311 - the same draws in every run
    door, tokens = _door(memory), list[str]()
    figures: dict[str, dict[str, dict[str, float]]] = {"Zipf": {}, "uniform": {}}
    for count in TOKENS:
        tokens += [key.sign(claims(serial)) for serial in range(len(tokens), count)]
        # As many as there is room for, so that draws begin with a full memory.
        for token in chance.sample(tokens, min(count, memory // COUNTED)):
            door.keeper.verify(token)
        for kind, draw in _kinds(count, chance).items():
            _checked(door, tokens, draw, WARM)
            figures[kind][f"{count:,}"] = _checked(door, tokens, draw, DRAWS)
    return figures


def _kinds(count: int, chance: random.Random) -> dict[str, _Draw]:
    shares = list(accumulate(1 / rank for rank in range(1, count + 1)))
    return {
        "Zipf": lambda number: chance.choices(range(count), cum_weights=shares, k=number),
        "uniform": lambda number: chance.choices(range(count), k=number),
    }


def _checked(door: _Door, tokens: Sequence[str], draw: _Draw, number: int) -> dict[str, float]:
    before, seconds = door.missed, list[float]()
    for _ in range(number // BATCH):
        requests = [check_request(tokens[place]) for place in draw(BATCH)]
        began = time.process_time()
        for request in requests:
            door.servicer.begin(request)
        seconds.append(time.process_time() - began)
    remembered = 1 - (door.missed - before) / number
    return {"CPU us": round(median(seconds) / BATCH * 1e6, 1), "remembered": round(remembered, 3)}


def _bytes(has_own: str) -> dict[str, int]:
    """Return what each of many remembered tokens takes of the memory of a process."""
    key, door = signing_key("ES256"), _door(MEMORIES["512 MiB"])
    applications = [f"client_01JYBENCH{serial if has_own else 0:016d}" for serial in range(ENTRIES)]
    tokens = [
        key.sign({**claims(serial), "sub": application, "client_id": application})
        for serial, application in enumerate(applications)
    ]
    door.keeper.verify(tokens.pop())
    this = Server(pid=os.getpid(), port=0)
    before = this.resident
    for token in tokens:
        door.keeper.verify(token)
    return {"bytes": round((this.resident - before) / len(tokens))}


if __name__ == "__main__":
    told = {"draws": _draws, "bytes": _bytes}[sys.argv[1]](sys.argv[2])
    sys.stdout.write(json.dumps(told))
