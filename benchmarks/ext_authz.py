"""The ext_authz server: CPU time and latency per check, by itself and behind a real Envoy."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import grpc

from authz.call.metadata import TrustedMetadata
from authz.demo.processes import Envoy
from authz.envoy.config import bootstrap, cluster, listener
from authz.envoy.v3.external_auth_pb2 import CheckResponse
from benchmarks import instructions
from benchmarks.h2load import GRPC, Outcome, framed, load
from benchmarks.loads import Load, unary_aio
from benchmarks.material import AUDIENCE, ISSUER, check_request, claims, signing_key
from benchmarks.processes import Server, running
from benchmarks.server import CHECK

ROUNDS = 5
REQUESTS = {"grpcio": 3000, "native": 20_000, "envoy": 8000}
STREAMS = 32
WORKERS = 2
UNSEEN = 2000
STARTS = 3


def measure() -> dict[str, object]:
    """Return the figures; the CPU time is the server process's alone, unless a figure's name says otherwise."""
    token = signing_key().sign(claims())
    body = framed(check_request(token))
    with ExitStack() as stack:
        servers = {
            "constant grpcio": (stack.enter_context(running("constant")), REQUESTS["grpcio"]),
            "ours on grpcio": (stack.enter_context(authz_serve("grpcio")), REQUESTS["grpcio"]),
            "bare native": (stack.enter_context(running("native-constant")), REQUESTS["native"]),
            "bare native with a cache": (stack.enter_context(running("native-cache")), REQUESTS["native"]),
            "ours on native": (stack.enter_context(authz_serve("native")), REQUESTS["native"]),
        }
        at_once = _in_turn({kind: _direct(server, count, body, STREAMS) for kind, (server, count) in servers.items()})
        alone = _in_turn({kind: _direct(server, count // 5, body, 1) for kind, (server, count) in servers.items()}, 3)
    cpu = {kind: [figure.cpu for figure in figures] for kind, figures in at_once.items()}
    return {
        "direct": {
            kind: {f"{STREAMS} streams": _summary(at_once[kind]), "1 stream": _summary(alone[kind])} for kind in cpu
        },
        "ratios of CPU per check": {
            "ours on grpcio / constant grpcio": _ratio(cpu["ours on grpcio"], cpu["constant grpcio"]),
            "ours on native / bare native": _ratio(cpu["ours on native"], cpu["bare native"]),
            "ours on native / bare native with a cache": _ratio(cpu["ours on native"], cpu["bare native with a cache"]),
            "ours on native / ours on grpcio": _ratio(cpu["ours on native"], cpu["ours on grpcio"]),
        },
        "instructions per check, on grpcio": _instructions(body),
        "tokens never seen, on native": _unseen(),
        f"{WORKERS} workers / 1 worker": _workers(body),
        "through Envoy": _through_envoy(token),
        "ready after start, seconds": {engine: _ready(engine, token) for engine in ("grpcio", "native")}
        | {f"grpcio, {WORKERS} workers": _ready("grpcio", token, "--workers", str(WORKERS))},
        "CPU until ready, seconds": {
            "1 worker": _cpu_until_ready(),
            f"{WORKERS} workers": _cpu_until_ready("--workers", str(WORKERS)),
        },
    }


class _Figure:
    """One run: CPU microseconds per request, and what the load saw."""

    def __init__(self, cpu: float, outcome: Outcome) -> None:
        self.cpu = cpu
        self.outcome = outcome


def _direct(server: Server, requests: int, body: bytes, streams: int) -> Callable[[], _Figure]:
    url = f"http://{server.address}{CHECK}"
    return lambda: _run([server], requests, lambda: load(url, requests, streams=streams, body=body, headers=GRPC))


def _run(servers: Sequence[Server], requests: int, work: Callable[[], Outcome]) -> _Figure:
    before = sum(server.cpu for server in servers)
    outcome = work()
    return _Figure((sum(server.cpu for server in servers) - before) / requests * 1e6, outcome)


def _in_turn(runs: Mapping[str, Callable[[], _Figure]], rounds: int = ROUNDS) -> dict[str, list[_Figure]]:
    figures: dict[str, list[_Figure]] = {kind: [] for kind in runs}
    for turn in range(rounds + 1):
        # Each goes first in every other round.
        for kind, run in list(runs.items())[:: 1 if turn % 2 else -1]:
            figure = run()
            if turn:  # The first round warms up.
                figures[kind].append(figure)
    return figures


def _summary(figures: Sequence[_Figure]) -> dict[str, float]:
    return {
        "CPU us": round(median(figure.cpu for figure in figures), 1),
        "per second": round(median(figure.outcome.per_second for figure in figures)),
        "p50 ms": round(median(figure.outcome.p50 for figure in figures), 2),
        "p99 ms": round(median(figure.outcome.p99 for figure in figures), 2),
    }


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return round(median(a / b for a, b in zip(ours, theirs, strict=True)), 3)


@contextmanager
def authz_serve(engine: str, *flags: str, listen: str = "127.0.0.1:0", under: Sequence[str] = ()) -> Iterator[Server]:
    """Run ``authz serve`` with the keys of the benchmarks, behind the words of another command."""
    jwks = json.dumps({"keys": [signing_key().public_jwk()]})
    given = ("--issuer", ISSUER, "--audience", AUDIENCE, "--jwks", jwks, "--log-format", "json")
    command = [*under, sys.executable, "-m", "authz", "serve", "--engine", engine, "--listen", listen, *given, *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            assert process.stderr is not None  # noqa: S101 - asked for above
            for line in process.stderr:
                event = json.loads(line)
                if event["event"] == "listening":
                    address = str(event["addresses"][0])
                    port = 0 if address.startswith("unix:") else int(address.rpartition(":")[2])
                    yield Server(pid=process.pid, port=port)
                    break
        finally:
            process.terminate()


def _unseen() -> dict[str, object]:
    """Compare tokens never seen before with a remembered one, and with one verification by OpenSSL."""
    from benchmarks.tokens import openssl_us  # noqa: PLC0415 - that module loads four other libraries

    key = signing_key()
    seen = [check_request(key.sign(claims()))] * UNSEEN
    rounds: list[tuple[float, float, float]] = []
    with authz_serve("native") as server:
        for turn in range(ROUNDS):
            unseen = [check_request(key.sign(claims(turn * UNSEEN + serial))) for serial in range(1, UNSEEN + 1)]
            used = [_cpu_of(server, questions) for questions in (seen, unseen)]
            rounds.append((used[0], used[1], openssl_us("RS256", UNSEEN // 10)))
    cached, cold, openssl = (median(column) for column in zip(*rounds, strict=True))
    return {
        "cached CPU us": round(cached, 1),
        "unseen CPU us": round(cold, 1),
        "OpenSSL us": round(openssl, 1),
        "(unseen - cached) / OpenSSL": round(median((b - a) / c for a, b, c in rounds), 2),
    }


def _cpu_of(server: Server, questions: Sequence[bytes]) -> float:
    before = server.cpu
    unary_aio(server.address, Load(unary_aio, CHECK, calls=len(questions), requests=questions))
    return (server.cpu - before) / len(questions) * 1e6


def _workers(body: bytes) -> dict[str, object]:
    return {engine: _workers_of(engine, body) for engine in ("grpcio", "native")}


def _workers_of(engine: str, body: bytes) -> dict[str, object]:
    count = REQUESTS[engine] * 2

    def run(server: Server) -> Callable[[], _Figure]:
        url = f"http://{server.address}{CHECK}"
        work = partial(load, url, count, streams=4, connections=8, body=body, headers=GRPC)
        return lambda: _run(server.family, count, work)

    with authz_serve(engine) as one, authz_serve(engine, "--workers", str(WORKERS)) as several:
        figures = _in_turn({"one": run(one), "several": run(several)}, 5)
    per_second = {name: [figure.outcome.per_second for figure in row] for name, row in figures.items()}
    cpu = {name: [figure.cpu for figure in row] for name, row in figures.items()}
    return {
        **{name: _summary(row) for name, row in figures.items()},
        "ratio of requests per second": _ratio(per_second["several"], per_second["one"]),
        "ratio of CPU per check": _ratio(cpu["several"], cpu["one"]),
    }


def _through_envoy(token: str) -> dict[str, object]:
    headers = (f"authorization: Bearer {token}", *GRPC)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authz-bench-")))
        servers = {
            engine: stack.enter_context(authz_serve(engine, listen=f"unix:{folder}/{engine}.sock"))
            for engine in ("grpcio", "native")
        }
        envoy = Envoy(_envoy_config(folder), folder)
        stack.callback(envoy.stop)
        targets, proxy = envoy.addresses(), Server(pid=envoy.pid, port=0)
        asked = {"no authorization": [], "jwt_authn": [], **{engine: [servers[engine]] for engine in servers}}

        def run(name: str, connections: int) -> Callable[[], _Figure]:
            url, count = f"http://{targets[name]}{CHECK}", REQUESTS["envoy"] // (3 if name == "grpcio" else 1)
            return lambda: _run(
                [proxy, *asked[name]], count, lambda: load(url, count, connections=connections, headers=headers)
            )

        figures = _in_turn({name: run(name, STREAMS) for name in asked}, 5)
    p99 = {name: [figure.outcome.p99 for figure in row] for name, row in figures.items()}
    return {
        f"{STREAMS} connections; CPU of Envoy and server": {name: _summary(row) for name, row in figures.items()},
        "p99 / p99 of jwt_authn": {engine: _ratio(p99[engine], p99["jwt_authn"]) for engine in servers},
    }


def _envoy_config(folder: Path) -> dict[str, Any]:
    answer = [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]
    listeners = {
        name: listener(name, "127.0.0.1:0", answer, authz=name, trusted=TrustedMetadata())
        for name in ("no authorization", "jwt_authn", "grpcio", "native")
    }
    for name, found in listeners.items():
        filters = found["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
        if name == "no authorization":
            del filters[0]
        elif name == "jwt_authn":
            filters[0] = _jwt_authn()
    clusters = [cluster(engine, [f"unix:{folder}/{engine}.sock"], http2=True) for engine in ("grpcio", "native")]
    return bootstrap(list(listeners.values()), clusters, admin="127.0.0.1:0")


def _jwt_authn() -> dict[str, Any]:
    provider = {
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "local_jwks": {"inline_string": json.dumps({"keys": [signing_key().public_jwk()]})},
        "claim_to_headers": [{"header_name": "x-org-id", "claim_name": "org_id"}],
        "jwt_cache_config": {},
    }
    return {
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"workos": provider},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "workos"}}],
        },
    }


def _instructions(body: bytes) -> dict[str, object]:
    """Compare our engine with our handler on a server without options, and with the least that any server must do.

    Valgrind hides from OpenSSL that the processor has instructions for SHA-256: about 25,000 more for each token.
    """

    def work(server: Server, calls: int) -> None:
        load(f"http://{server.address}{CHECK}", calls, streams=STREAMS, body=body, headers=GRPC)

    starts: dict[str, instructions.Start] = {
        "constant": partial(running, "constant"),
        "constant with a cache": partial(running, "cache"),
        "our handler on a plain server": partial(running, "check"),
        "ours on grpcio": partial(authz_serve, "grpcio"),
    }
    kinds = {kind: partial(instructions.per_call, start, work) for kind, start in starts.items()}
    return instructions.compare(kinds, "constant")


def _cpu_until_ready(*flags: str) -> dict[str, float]:
    """Return the least CPU seconds of the command until it listens, and of that one of its workers that needs most."""
    own, of_worker = [], []
    for _ in range(STARTS):
        with authz_serve("grpcio", *flags) as server:
            first, *workers = [each.cpu for each in server.family]
            own.append(first)
            of_worker += [max(workers)] if workers else []
    return {"command": min(own), **({"worker": min(of_worker)} if of_worker else {})}


def _ready(engine: str, token: str, *flags: str) -> float:
    """Return the seconds from the start of the command to its first answer that allows a call."""
    question = check_request(token)
    taken = []
    for _ in range(STARTS):
        began = time.perf_counter()
        with authz_serve(engine, *flags) as server, grpc.insecure_channel(server.address) as channel:
            answer = channel.unary_unary(CHECK)(question, timeout=10)
            taken.append(time.perf_counter() - began)
            if CheckResponse.FromString(answer).status.code != 0:
                raise RuntimeError("a good token was refused")
    return round(median(taken), 2)
