"""Instructions of a check on our native engine by what becomes of its token, beside the least that one needs.

Keys and tokens are made by this process, and a server counts only while it answers: nothing else is in the figures. The
peer in Go is not among them: valgrind runs the threads of Go's runtime one at a time, which changes what they do.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count, repeat

from authz.demo.issuer.signing import SigningKey
from benchmarks.ext_authz import authz_serve
from benchmarks.instructions import counting, per_call
from benchmarks.loads import Load, unary_aio
from benchmarks.material import KID, check_request, claims, signing_key
from benchmarks.processes import Server, running
from benchmarks.server import CHECK

CALLS = 150
_OURS, _BARE = "ours on native", "bare native with a cache"


def measure() -> dict[str, object]:
    """Return thousands of instructions per check; but for remembered tokens, each check has its own."""
    stranger, now = SigningKey.generate(KID), claims()["iat"]
    kinds: Mapping[str, Callable[[int], str]] = {
        "never seen": _signed,
        "refused: malformed": "malformed-{}".format,
        "refused: of another issuer": partial(_signed, iss="https://other.example"),
        "refused: expired": partial(_signed, iat=now - 7200, exp=now - 3600),
        "refused: signed by another": partial(_signed, key=stranger),
    }
    same = repeat(_signed(0))
    with counting(partial(authz_serve, "native")) as counted:
        counts = {_OURS: counted(_asking(same), CALLS)}
        for name, token in kinds.items():
            counts[f"{_OURS}, {name}"] = counted(_asking(map(token, count(1))), CALLS)
    counts[_BARE] = per_call(partial(running, "native-cache"), _asking(same), CALLS)
    return {
        "thousand instructions": {name: round(number / 1e3, 1) for name, number in counts.items()},
        f"{_OURS} / {_BARE}": round(counts[_OURS] / counts[_BARE], 3),
    }


def _signed(serial: int, *, key: SigningKey | None = None, **other: object) -> str:
    return (key or signing_key()).sign({**claims(serial), **other})


def _asking(tokens: Iterator[str]) -> Callable[[Server, int], None]:
    def make(server: Server, calls: int) -> None:
        questions = [check_request(next(tokens)) for _ in range(calls)]
        unary_aio(server.address, Load(unary_aio, CHECK, calls=calls, requests=questions))

    return make
