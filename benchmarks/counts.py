"""Instructions per call, beside CPU time: what each door and each kind of token needs.

Keys and tokens are made by this process, and a server counts only while it answers: nothing else is in the figures. The
peer in Go is not among them: valgrind runs the threads of Go's runtime one at a time, which changes what they do.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from authz.demo.issuer.signing import SigningKey
from benchmarks.ext_authz import authz_serve
from benchmarks.instructions import Start, counting
from benchmarks.loads import Load, unary_aio, unary_sync
from benchmarks.material import KID, check_request, claims, signing_key
from benchmarks.processes import Server, running
from benchmarks.server import CALL, CHECK

_OURS = "ours on native"
_SERVERS: Mapping[str, Start] = {
    "ours on grpcio": partial(authz_serve, "grpcio"),
    "our handler on grpc.aio": partial(running, "check"),
    "bare grpc.aio": partial(running, "constant"),
    "bare native with a cache": partial(running, "native-cache"),
}
_DOORS = {"interceptor, aio": "aio-authz", "one that does nothing, aio": "aio-wrapped"}
_DOORS |= {"interceptor, sync": "sync-authz", "one that does nothing, sync": "sync-wrapped"}

Tokens = Iterator[str]


def measure() -> dict[str, object]:
    """Return thousands of instructions per call, and ratios; it takes some minutes, for valgrind is slow."""
    counts = {**_kinds(), **{name: _remembered(start) for name, start in _SERVERS.items()}}
    counts |= {name: _door(kind) for name, kind in _DOORS.items()}
    pairs = {
        (_OURS, "bare native with a cache"),
        ("ours on grpcio", "our handler on grpc.aio"),
        ("ours on grpcio", "bare grpc.aio"),
        ("interceptor, aio", "one that does nothing, aio"),
        ("interceptor, sync", "one that does nothing, sync"),
    }
    return {
        "thousand instructions": {name: round(count / 1e3, 1) for name, count in counts.items()},
        "ratios": {f"{one} / {other}": round(counts[one] / counts[other], 3) for one, other in sorted(pairs)},
    }


def _kinds() -> dict[str, int]:
    """Count a check on our native engine by what becomes of its token; but for the first, each call has its own."""
    kinds: Mapping[str, Callable[[int], str]] = {
        "never seen": lambda serial: signing_key().sign(claims(serial)),
        "refused: malformed": lambda serial: f"malformed-{serial}",
        "refused: of another issuer": lambda serial: _signed(serial, iss="https://other.example"),
        "refused: expired": lambda serial: _signed(serial, iat=claims()["iat"] - 7200, exp=claims()["iat"] - 3600),
        "refused: signed by another": partial(_by_another, SigningKey.generate(KID)),
    }
    with counting(partial(authz_serve, "native")) as count:
        counts = {_OURS: count(_asking(_same()))}
        for name, token in kinds.items():
            counts[f"{_OURS}, {name}"] = count(_asking(map(token, range(1, 1_000_000))))
    return counts


def _signed(serial: int, **other: object) -> str:
    return signing_key().sign({**claims(serial), **other})


def _by_another(stranger: SigningKey, serial: int) -> str:
    return stranger.sign(claims(serial))


def _same() -> Tokens:
    token = signing_key().sign(claims())
    while True:
        yield token


def _asking(tokens: Tokens) -> Callable[[Server, int], None]:
    def make(server: Server, calls: int) -> None:
        questions = [check_request(next(tokens)) for _ in range(calls)]
        unary_aio(server.address, Load(unary_aio, CHECK, calls=calls, requests=questions))

    return make


def _remembered(start: Start) -> int:
    with counting(start) as count:
        return count(_asking(_same()))


def _door(kind: str) -> int:
    metadata = (("authorization", f"Bearer {next(_same())}"),)
    load = unary_sync if kind.startswith("sync") else unary_aio
    with counting(partial(running, kind)) as count:
        return count(lambda server, calls: load(server.address, Load(load, CALL, metadata=metadata, calls=calls)))
