"""What :mod:`benchmarks.soak` runs: an issuer, a store, ``authz serve`` with two workers, and a server of Python."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from authz import Authorizer, SharedState, Verifier
from authz.demo.processes import Process
from benchmarks.processes import Server
from benchmarks.soak_issuer import ALGORITHM, OtherIssuer, issuing
from tests.store.engines import Engine

WORKERS = 2


@dataclass(frozen=True)
class Site:
    """The servers, and how to disturb them."""

    issuer: OtherIssuer
    operator: Authorizer
    workers: list[str]
    port: int
    processes: dict[str, Server]
    _policy: Path

    def reload(self, number: int) -> None:
        """Put another policy in force, which allows the same."""
        _write_policy(self._policy, number)

    def samples(self) -> dict[str, dict[str, float]]:
        """Return what each process holds: mebibytes, file descriptors and threads."""
        return {
            name: {
                "MiB": round(server.resident / 2**20, 2),
                "descriptors": len(list(Path(f"/proc/{server.pid}/fd").iterdir())),
                "threads": server.threads,
            }
            for name, server in self.processes.items()
        }


@contextmanager
def running(folder: Path) -> Iterator[Site]:
    """Run everything on loopback, until the end of the block."""
    with ExitStack() as stack:
        store = stack.enter_context(Engine("valkey"))
        issuer = stack.enter_context(issuing())
        audience, policy = issuer.audience, folder / "policy.json"
        _write_policy(policy, 0)
        listen = f"unix:{store.folder}/authz"
        command = [sys.executable, "-m", "authz", "serve", "--log-format", "json", "--listen", listen]
        verifier = f"--issuer {issuer.url} --audience {audience} --algorithms {ALGORITHM}".split()
        shared = f"--workers {WORKERS} --policy {policy} --store {store.url}".split()
        serving = Process("serve", [*command, *verifier, *shared], folder)
        stack.callback(serving.stop)
        own = [sys.executable, "-m", "benchmarks.soak_server", issuer.url, audience, store.url]
        python = stack.enter_context(subprocess.Popen(own, stdin=subprocess.PIPE, stdout=subprocess.PIPE))  # noqa: S603
        stack.callback(python.kill)
        assert python.stdout is not None  # noqa: S101 - asked for above
        port = int(python.stdout.readline())
        serving.wait_for(lambda: any(line.get("event") == "listening" for line in serving.lines()))
        operator = Authorizer(Verifier(issuer=issuer.url, audience=audience, algorithms=[ALGORITHM]))
        stack.enter_context(SharedState(store.url, operator))
        started = [line for line in serving.lines() if line.get("event") == "worker_started"]
        workers = {f"worker {line['worker']}": Server(pid=line["pid"], port=0) for line in started}
        processes = {**workers, "python": Server(pid=python.pid, port=port)}
        addresses = [f"{listen}.{number}" for number in range(WORKERS)]
        yield Site(issuer, operator, addresses, port, processes, policy)


def _write_policy(path: Path, number: int) -> None:
    policy = {"name": f"soak-{number}", "allow_rules": [{"name": "everything"}]}
    written = path.with_suffix(".new")
    written.write_text(json.dumps(policy), encoding="utf-8")
    written.replace(path)
