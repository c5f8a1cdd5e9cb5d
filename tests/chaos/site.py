"""A real Envoy that asks several workers about every request, and answers the good ones itself."""

import contextlib
import os
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2

from authz.call.metadata import TrustedMetadata
from authz.demo.processes import Envoy
from authz.envoy.config import bootstrap, listener
from authz.envoy.config.authz_cluster import authz_cluster
from tests.doubles import AUDIENCE, ISSUER
from tests.programs import PATIENCE, Program

WORKERS = 2


class Site:
    """The workers and where they are asked for.

    Args:
        program: their supervisor.
        probes: the address of its probes.
        url: Envoy's.

    """

    def __init__(self, program: Program, probes: str, url: str) -> None:
        self.program, self.url = program, url
        self._probes = probes

    def replace_workers(self) -> None:
        """Replace all workers one by one."""
        self.program.send(signal.SIGHUP)
        self.program.await_event("workers_replaced")

    def kill(self, worker: int) -> None:
        """Kill a worker."""
        started = [event for event in self.program.events() if event["event"] == "worker_started"]
        os.kill({event["worker"]: event["pid"] for event in started}[worker], signal.SIGKILL)

    def await_recovery(self, worker: int) -> None:
        """Return when a worker that has died serves again."""
        self.program.await_event("worker_died", worker=worker)
        self.program.await_event("health", worker=worker, status="SERVING")

    def figure(self, name: str) -> float:
        text = httpx2.get(f"http://{self._probes}/metrics", trust_env=False, timeout=PATIENCE).text
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0


@contextlib.contextmanager
def site(folder: Path, keys: Sequence[str], engine: str, listen: str, drain: float = 0.0) -> Iterator[Site]:
    """Run it until the end of the block."""
    verifier = ("--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256", *keys)
    served = ("--engine", engine, "--workers", str(WORKERS), "--listen", listen, "--http-listen", "127.0.0.1:0")
    with Program("serve", *verifier, *served, "--drain", str(drain), "--log-format", "json", folder=folder) as program:
        try:
            probes = program.await_event("probes")["address"]
            envoy = Envoy(_config(program.await_event("listening")["addresses"]), folder)
            if _serving(program) < WORKERS:
                program.await_line(lambda _: _serving(program) == WORKERS)
            try:
                yield Site(program, probes, f"http://{envoy.addresses()['main']}/")
            finally:
                envoy.stop()
        finally:
            program.send(signal.SIGTERM)
            program.wait()


def _serving(program: Program) -> int:
    return sum(event.get("status") == "SERVING" for event in program.events())


def _config(addresses: Sequence[str]) -> dict[str, Any]:
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    workers = authz_cluster("authz", addresses)
    # What we advise, but faster: health is checked every second, and nobody here waits so long.
    workers["health_checks"][0].update(interval="0.1s", no_traffic_interval="0.1s")
    main = listener("main", "127.0.0.1:0", [answer], authz="authz", trusted=TrustedMetadata())
    return bootstrap([main], [workers], admin="127.0.0.1:0")
