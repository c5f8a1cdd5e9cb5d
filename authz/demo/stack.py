"""The processes of the demonstration: issuer, backend, authorization servers and a real Envoy.

All listen on loopback, on free ports; leaving the ``with`` block ends them.
"""

import re
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from authz.call.metadata import TrustedMetadata
from authz.demo.issuer.directory import load_directory
from authz.demo.policy import ledger_descriptors, write_policy
from authz.demo.processes import Envoy, Process
from authz.envoy.config import bootstrap, cluster, grpc_route, http_route, listener, memo, unary_route
from authz.envoy.config.authz_cluster import Tls, authz_cluster
from authz.server.serving.server import EngineName

ADMIN_SECRET = "demo-admin-secret"  # noqa: S105 - of a page on loopback, for as long as the demonstration runs
"""The secret that the demonstration's admin page asks for before it acts."""

_START_SECONDS = 120.0
_MAX_REQUEST_BYTES = 65_536
_ONE_REQUEST = ("PostEntry", "ListEntries")
"""The ledger's methods with a single request, which Envoy can show to the authorization server."""

_ISSUER = re.compile(r"listening on (http://[^\s/]+)")


class Stack:
    """Issuer, backend, authorization server and Envoy, and a second listener with a server that has no keys yet.

    Args:
        engine: the gRPC engine of the authorization servers.

    Attributes (while it runs):
        issuer_url: the development issuer.
        backend: addresses of the backend: ``grpc`` and ``http``.
        target: ``HOST:PORT`` of Envoy.
        cold_target: ``HOST:PORT`` of the second listener; :meth:`start_cold` starts its server.
        proxy: the Envoy.
        memo_target: ``HOST:PORT`` of a third listener, which repeats answers of the first server.
        admin_url: the admin page of the first authorization server.
        policy: the policy file of the backend and of both authorization servers.

    """

    def __init__(self, engine: EngineName = "grpcio") -> None:
        self.directory = load_directory()
        self._engine = engine
        self._processes: list[Process] = []
        self._issuer_flags: list[str] = []
        self._folder = tempfile.TemporaryDirectory(prefix="authz-demo-", ignore_cleanup_errors=True)
        self._path = Path(self._folder.name)
        self.policy = self._path / "policy.json"
        self._descriptors = self._path / "api.binpb"
        self._xds = f"unix:{self._path}/xds.sock"

    def __enter__(self) -> Self:
        try:
            self._start_all()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start_cold(self) -> Process:
        """Start the authorization server of the second listener, and return its process."""
        return self._start_authz("cold")

    def wait_for_cold(self) -> None:
        """Return once that server has found its keys."""
        self._wait_for_health("cold")

    def stop_issuer(self) -> None:
        """End the issuer."""
        self._issuer.stop()

    def restart_issuer(self) -> None:
        """Start the issuer again, where it was and with its keys."""
        self._start_issuer(self.issuer_url.removeprefix("http://"))

    def change_policy(self, **more: Any) -> None:
        """Add ``more`` to the original policy file; nothing is restarted."""
        write_policy(self.policy, more)

    def stop(self) -> None:
        """End every process, the last one first."""
        while self._processes:
            self._processes.pop().stop()
        self._folder.cleanup()

    def _start_all(self) -> None:
        self.change_policy()
        self._descriptors.write_bytes(ledger_descriptors())
        self._start_issuer("127.0.0.1:0")
        backend = self._start_module("backend", "authz.demo.backend", *self._judge_flags())
        (self._path / "admin-secret").write_text(ADMIN_SECRET, encoding="utf-8")
        page = ("--admin", "127.0.0.1:0", "--admin-secret-file", "admin-secret")
        server = self._start_authz("authz", *page, "--remember", "30", "--xds", self._xds)
        self.admin_url = next(f"http://{line['address']}/" for line in server.lines() if line.get("event") == "admin")
        self.backend: dict[str, str] = backend.wait_for(backend.lines)[0]
        self.proxy = proxy = Envoy(self._envoy_config(), self._path)
        self._processes.append(proxy)
        addresses = proxy.addresses()
        self.target, self.cold_target, self.memo_target = addresses["main"], addresses["cold"], addresses["memo"]
        self._wait_for_health("authz")

    def _start_issuer(self, listen: str) -> None:
        keys = self._path / "issuer-keys.json"
        issuer = self._start_module(
            "issuer", "authz", "issuer", "--listen", listen, "--keys", str(keys), *self._issuer_flags
        )
        self._issuer = issuer
        self.issuer_url = str(issuer.wait_for(lambda: _ISSUER.search(issuer.text()))[1])

    def _start_module(self, name: str, module: str, *arguments: str) -> Process:
        process = Process(name, [sys.executable, "-m", module, *arguments], self._path)
        self._processes.append(process)
        return process

    def _start_authz(self, name: str, *more: str) -> Process:
        listen = f"unix:{self._path}/{name}.sock"
        flags = ("--listen", listen, "--engine", self._engine, "--log-format", "json", *more, *self._judge_flags())
        server = self._start_module(name, "authz", "serve", *flags)
        server.wait_for(lambda: any(line.get("event") == "listening" for line in server.lines()))
        return server

    def _judge_flags(self) -> list[str]:
        policy = ("--policy", str(self.policy), "--descriptors", str(self._descriptors))
        return ["--issuer", self.issuer_url, "--audience", self.directory.audience, *policy]

    def _envoy_config(self) -> dict[str, Any]:
        shown = [unary_route("ledger", f"/authz.demo.v1.LedgerService/{name}") for name in _ONE_REQUEST]
        routes = [*shown, grpc_route("ledger"), http_route("web")]
        options: dict[str, Any] = {
            "trusted": TrustedMetadata(),
            "max_request_bytes": _MAX_REQUEST_BYTES,
            # To show that forged names have no effect in any spelling.
            "underscores": "ALLOW",
        }
        return bootstrap(
            [
                listener("main", "127.0.0.1:0", routes, authz="authz", **options),
                listener("cold", "127.0.0.1:0", routes, authz="cold", **options),
                listener("memo", "127.0.0.1:0", routes, authz="memo", memo=memo.filter_from(self._xds), **options),
            ],
            [
                authz_cluster("authz", [f"unix:{self._path}/authz.sock"]),
                authz_cluster("cold", [f"unix:{self._path}/cold.sock"]),
                authz_cluster("memo", [f"unix:{self._path}/authz.sock"]),
                *memo.clusters(self._xds, Tls()),
                cluster("ledger", [self.backend["grpc"]], http2=True),
                cluster("web", [self.backend["http"]], http2=False),
            ],
            admin="127.0.0.1:0",
            node=memo.NODE,
        )

    def _wait_for_health(self, name: str) -> None:
        with grpc.insecure_channel(f"unix:{self._path}/{name}.sock") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            for response in stub.Watch(health_pb2.HealthCheckRequest(), timeout=_START_SECONDS):
                if response.status == health_pb2.HealthCheckResponse.SERVING:
                    return
