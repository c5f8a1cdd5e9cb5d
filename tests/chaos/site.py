"""A real Envoy that asks several workers about every request, and answers the good ones itself."""

import contextlib
import os
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2

from authz.demo.stack import Envoy
from authz.envoy.config import bootstrap, cluster, listener
from authz.metadata import TrustedMetadata
from tests.doubles import AUDIENCE, ISSUER
from tests.programs import PATIENCE, Program

WORKERS = 2

# "cancelled" is what gRPC's core makes of calls that reach a server after it has begun to stop.
_RETRY = {
    "retry_on": "connect-failure,refused-stream,reset,unavailable,cancelled",
    "num_retries": 3,
    "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            },
        }
    ],
    "host_selection_retry_max_attempts": 3,
}
_HEALTH_CHECK = {
    "timeout": "1s",
    "interval": "0.1s",
    # Else it would be 60 s before the first request.
    "no_traffic_interval": "0.1s",
    "unhealthy_threshold": 1,
    "healthy_threshold": 1,
    "grpc_health_check": {},
}


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


def _config(authz: Sequence[str]) -> dict[str, Any]:
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    main = listener("main", "127.0.0.1:0", [answer], authz="authz", trusted=TrustedMetadata())
    [chain] = main["filter_chains"]
    ext_authz = chain["filters"][0]["typed_config"]["http_filters"][0]["typed_config"]
    ext_authz["grpc_service"]["retry_policy"] = _RETRY
    workers = cluster("authz", authz, http2=True)
    workers["health_checks"] = [_HEALTH_CHECK]
    # By default Envoy's threads learn of a second change within a second only at its end.
    workers["common_lb_config"] = {"update_merge_window": "0s"}
    # By default no more than three requests may be tried again at a time.
    workers["circuit_breakers"] = {"thresholds": [{"max_retries": 1024}]}
    return bootstrap([main], [workers], admin="127.0.0.1:0")
