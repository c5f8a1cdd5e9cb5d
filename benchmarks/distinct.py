"""What a check costs when callers have more tokens than are remembered, and what remembering more of them takes.

The tokens are ES256, because those are signed sooner; an RS256 token that is not remembered costs less than one of
these, as the part ``tokens`` says.
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
from typing import Any, NamedTuple

from authz import Authorizer, Verifier
from authz.envoy.check.servicer import AuthorizationServicer
from benchmarks.material import AUDIENCE, ISSUER, check_request, claims, signing_key
from benchmarks.processes import Server

MEMORIES = {"32 MiB": 32 << 20, "512 MiB": 512 << 20}
"""The default of ``authz serve``, if the machine has enough memory, and more than all tokens take."""

TOKENS = (1_000, 10_000, 50_000, 200_000)
DRAWS, BATCH = 6_000, 1_000
COUNTED = 1_500
"""A token counts as more bytes than these."""

ENTRIES = 20_000
"""How many tokens are remembered to see what one takes."""

_Draw = Callable[[int], Sequence[int]]


def measure() -> dict[str, object]:
    """Return CPU of a check and share of remembered tokens, by memory, kind of draws and number; and their bytes."""
    return {
        **_apart("draws"),
        "bytes of a remembered token": {
            "of one application": _apart("bytes")["bytes"],
            "an application each": _apart("bytes", "each")["bytes"],
        },
    }


def _apart(*words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", __name__, *words]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - our own program
    figures: dict[str, Any] = json.loads(result.stdout)
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


def _draws() -> dict[str, dict[str, dict[str, float]]]:
    """Return, by memory, kind of draws and number of tokens, what a check takes and which share is remembered."""
    key, tokens = signing_key("ES256"), list[str]()
    chance = random.Random(1)  # noqa: S311 - the same draws in every run
    doors = {name: _door(size) for name, size in MEMORIES.items()}
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for count in TOKENS:
        tokens += [key.sign(claims(serial)) for serial in range(len(tokens), count)]
        for kind, draw in _kinds(count, chance).items():
            for name, door in doors.items():
                _fill(door, tokens, draw)
                _checked(door, tokens, draw, BATCH)
                figures.setdefault(f"{name}, {kind}", {})[f"{count:,}"] = _checked(door, tokens, draw, DRAWS)
    return figures


def _fill(door: _Door, tokens: Sequence[str], draw: _Draw) -> None:
    """Have a memory hold all tokens; or if they are too many, those that it holds after many such draws."""
    room = door.keeper.memories[ISSUER].limit // COUNTED
    if len(tokens) <= room:
        for token in tokens:
            door.keeper.verify(token)
        return
    before = door.missed
    while door.missed - before < room:
        for place in draw(BATCH):
            door.keeper.verify(tokens[place])


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


def _bytes(has_own: str = "") -> dict[str, int]:
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
    told = _draws() if sys.argv[1] == "draws" else _bytes(*sys.argv[2:])
    sys.stdout.write(json.dumps(told))
