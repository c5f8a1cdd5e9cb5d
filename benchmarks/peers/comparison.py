"""What a check costs our server and its peers, in turn in one run: a token that was seen before, and one never seen."""

import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import grpc

from benchmarks.ext_authz import authz_serve
from benchmarks.h2load import GRPC, Outcome, framed, load
from benchmarks.loads import Load, unary_aio
from benchmarks.material import check_request, claims, signing_key
from benchmarks.missing import MissingError
from benchmarks.peers import golang
from benchmarks.peers.commands import Peer, PeerError, judge, started
from benchmarks.processes import Server, running
from benchmarks.server import CHECK

OURS = "ours on native"
NAMES = (OURS, "bare native with a cache", "bare grpc.aio", golang.NAME)
"""The names that are taken."""

_REFERENCES = NAMES[1:3]
"""Those that verify nothing: what any server of their kind must do at least."""

_ALWAYS = NAMES[:3]

STREAMS = 32
_LEAST, _MOST = 500, 30_000
_FAILURES = (PeerError, OSError, RuntimeError, ValueError, subprocess.SubprocessError, grpc.RpcError)


class Effort(NamedTuple):
    """How much is measured.

    Args:
        rounds: how often each server has its turn.
        seconds: CPU time of a server for remembered tokens, in each round.
        unseen: tokens that are new, in each round.

    """

    rounds: int = 7
    seconds: float = 0.8
    unseen: int = 2000


class _Round(NamedTuple):
    cached: float
    together: Outcome
    alone: Outcome
    remembered: float
    unseen: float


def measure(peers: Sequence[Peer] = (), effort: Effort | None = None, *, is_built: bool = True) -> dict[str, object]:
    """Return the figures of each server, and ours as a ratio of each other's.

    Args:
        peers: servers besides those that are always compared.
        effort: how much is measured; enough for steady ratios, if not given.
        is_built: whether the peer in Go is built and compared.

    """
    left_out: dict[str, str] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authz-bench-")))
        servers = {
            OURS: stack.enter_context(authz_serve("native")),
            _REFERENCES[0]: stack.enter_context(running("native-cache")),
            _REFERENCES[1]: stack.enter_context(running("constant")),
        }
        for peer in (*(_go(folder, left_out) if is_built else ()), *peers):
            own = Path(tempfile.mkdtemp(dir=folder))
            try:
                servers[peer.name] = stack.enter_context(started(peer, own))
            except PeerError as error:
                left_out[peer.name] = str(error)
        rounds = _in_turn(servers, effort or Effort(), left_out)
    figures = {name: _summary(rows) for name, rows in rounds.items()}
    verifying = [name for name in figures if name not in _REFERENCES]
    for name in set(figures) - set(verifying):
        del figures[name]["unseen CPU us"], figures[name]["unseen, above remembered us"]
    others = [name for name in rounds if name != OURS]
    return {
        f"{STREAMS} streams and one": figures,
        "ours / theirs, remembered": {name: _ratio(rounds, name, lambda row: row.cached) for name in others},
        "ours / theirs, never seen": {
            name: _ratio(rounds, name, lambda row: row.unseen) for name in verifying if name != OURS
        },
        "left out": left_out,
    }


def _go(folder: Path, left_out: dict[str, str]) -> Sequence[Peer]:
    try:
        return [golang.built(folder)]
    except MissingError as error:
        left_out[golang.NAME] = str(error)
        return []


def _in_turn(servers: Mapping[str, Server], effort: Effort, left_out: dict[str, str]) -> dict[str, list[_Round]]:
    """Give each server its turn in each round; a peer that fails is left out from then on."""
    key = signing_key()
    token = key.sign(claims())
    counts: dict[str, int] = {}
    rows: dict[str, list[_Round]] = {name: [] for name in servers}

    def turn(name: str, questions: Sequence[bytes]) -> None:
        if name not in counts:  # The first turn warms up, and says how many calls fill the time.
            cpu = _cpu(servers[name], lambda: _load(servers[name], _LEAST, token, STREAMS)) / _LEAST
            counts[name] = round(min(max(effort.seconds / max(cpu, 1e-6), _LEAST), _MOST))
        else:
            rows[name].append(_round(servers[name], counts[name], token, questions))

    for number in range(effort.rounds + 1):
        serials = range(number * effort.unseen + 1, (number + 1) * effort.unseen + 1)
        questions = [check_request(key.sign(claims(serial))) for serial in serials]
        for name in list(rows)[:: 1 if number % 2 else -1]:
            try:
                turn(name, questions)
                if name not in _ALWAYS and number == effort.rounds:
                    judge(servers[name].address)
            except _FAILURES as error:
                if name in _ALWAYS:
                    raise
                why = str(error) if isinstance(error, PeerError) else type(error).__name__
                left_out[name] = f"it failed in round {number}: {why}"
                del rows[name]
    return rows


def _round(server: Server, count: int, token: str, questions: Sequence[bytes]) -> _Round:
    outcomes: list[Outcome] = []
    cached = _cpu(server, lambda: outcomes.append(_load(server, count, token, STREAMS))) / count
    alone = _load(server, max(count // 10, _LEAST), token, 1)
    seen = [check_request(token)] * len(questions)
    remembered, unseen = (_cpu(server, _asking(server, each)) / len(each) for each in (seen, questions))
    return _Round(cached * 1e6, outcomes[0], alone, remembered * 1e6, unseen * 1e6)


def _load(server: Server, count: int, token: str, streams: int) -> Outcome:
    url = f"http://{server.address}{CHECK}"
    return load(url, count, streams=streams, body=framed(check_request(token)), headers=GRPC)


def _asking(server: Server, questions: Sequence[bytes]) -> Callable[[], None]:
    return lambda: unary_aio(server.address, Load(unary_aio, CHECK, calls=len(questions), requests=questions))


def _cpu(server: Server, work: Callable[[], object]) -> float:
    """Return the CPU seconds of a server and of what it has started, during some work."""
    before = server.cpu_of_all
    work()
    return server.cpu_of_all - before


def _summary(rows: Sequence[_Round]) -> dict[str, object]:
    cached = [row.cached for row in rows]
    return {
        "CPU us": round(median(cached), 1),
        "least, first quartile": [round(min(cached), 1), round(quantiles(cached, method="inclusive")[0], 1)],
        "per second": round(median(row.together.per_second for row in rows)),
        "p50 ms": round(median(row.together.p50 for row in rows), 2),
        "p99 ms": round(median(row.together.p99 for row in rows), 2),
        "one stream, p50 ms": round(median(row.alone.p50 for row in rows), 2),
        "one stream, p99 ms": round(median(row.alone.p99 for row in rows), 2),
        "unseen CPU us": round(median(row.unseen for row in rows), 1),
        "unseen, above remembered us": round(median(row.unseen - row.remembered for row in rows), 1),
    }


def _ratio(rounds: Mapping[str, Sequence[_Round]], name: str, figure: Callable[[_Round], float]) -> float:
    pairs = zip(rounds[OURS], rounds[name], strict=True)
    return round(median(figure(one) / figure(other) for one, other in pairs), 3)
