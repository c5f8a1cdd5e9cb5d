"""One Envoy with two listeners before one authorization server: one asks every time, the other repeats answers."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx2

from authz.call.metadata import TrustedMetadata
from authz.demo.issuer.signing import SigningKey
from authz.demo.processes import Envoy
from authz.envoy.config import bootstrap, cluster, grpc_route, grpc_web_route, http_route, listener
from authz.envoy.config.authz_cluster import Tls, authz_cluster
from authz.envoy.config.memo import NODE, clusters, filter_from
from authz.server.serving.server import EngineName
from tests.doubles import AUDIENCE, ISSUER, PATIENCE, jwks, m2m_claims
from tests.e2e.mesh import grpc_echo, http_echo
from tests.programs import Program

SUSPENDED, TENANT, METERED = (f"org_01JY{name}0000000000000000" for name in ("SUSPENDED", "TENANT", "METERED"))
PUBLIC, PUBLIC_CALL = "/public", "/tests.Public/Call"
DENIED, CONDITIONAL, SCOPED = "/tests.Guarded/Denied", "/tests.Guarded/Conditional", "/tests.Guarded/Scoped"
ADMIN_SECRET = "a-secret-for-the-test"
POLICY: dict[str, Any] = {
    "name": "remembered",
    "deny_rules": [
        {"name": "denied", "request": {"paths": [DENIED, "/denied"]}},
        {"name": "slow", "request": {"paths": [CONDITIONAL], "headers": [{"key": "x-mode", "values": ["slow"]}]}},
    ],
    "allow_rules": [
        {"name": "scoped", "request": {"paths": [SCOPED]}, "source": {"scopes": ["ledger.write"]}},
        {"name": "others", "request": {"paths": ["/tests.Guarded/Call", CONDITIONAL, "/accounts*", "/public"]}},
    ],
    "public": [PUBLIC_CALL],
    "organizations": {
        SUSPENDED: {"status": "suspended"},
        TENANT: {"tenant": "tenant-7"},
        METERED: {"quota": "metered"},
    },
    "quotas": {"metered": {"requests_per_second": 1000, "burst": 1000}},
}


_TYPE = "type.googleapis.com/envoy.extensions.filters.http."
_ASKS_FOR_MORE = {
    "match": {"prefix": "/", "headers": [{"name": "x-extra", "present_match": True}]},
    "typed_per_filter_config": {
        "envoy.filters.http.ext_authz": {
            "@type": f"{_TYPE}ext_authz.v3.ExtAuthzPerRoute",
            "check_settings": {"context_extensions": {"scopes": "ledger:extra"}},
        },
        # As docs/envoy.md has it.
        "authz.memo": {"@type": f"{_TYPE}lua.v3.LuaPerRoute", "disabled": True},
    },
}


class Remembered:
    """The stack; a context manager.

    Args:
        folder: for sockets and files.
        key: signs good tokens.
        engine: of the authorization server.
        flags: more of them for it.
        tls: by which Envoy hears what it may repeat, where that is no Unix socket.

    Attributes:
        asked: ``HOST:PORT`` of the listener that asks every time.
        memo: that of the one that repeats answers.
        admin: the address of the authorization server's page.

    """

    def __init__(
        self,
        folder: Path,
        key: SigningKey,
        *flags: str,
        engine: EngineName = "native",
        xds: str = "",
        workers: int = 1,
        remember: float = 30,
        keys_url: str = "",
        tls: Tls | None = None,
    ) -> None:
        self._tls = tls or Tls()
        self.folder, self._key, self._engine, self._flags = folder, key, engine, flags
        self._xds = xds or f"unix:{folder}/xds.sock"
        self._workers, self._remember, self._keys_url = workers, remember, keys_url
        self.policy = folder / "policy.json"
        self.keys = folder / "jwks.json"
        self._running = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as starting:
            self.change_policy()
            self.keys.write_text(json.dumps(jwks(self._key)), encoding="utf-8")
            (self.folder / "secret").write_text(ADMIN_SECRET, encoding="utf-8")
            upstreams = starting.enter_context(grpc_echo()), starting.enter_context(http_echo())
            self.start_server()
            starting.callback(self._end_server)
            self.envoy = Envoy(self._config(*upstreams), self.folder)
            starting.callback(self.envoy.stop)
            addresses = self.envoy.addresses()
            self.asked, self.memo = addresses["asked"], addresses["memo"]
            self.envoy.wait_for(lambda: self.version() is not None)
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def start_server(self) -> None:
        flags = ["--listen", f"unix:{self.folder}/authz.sock", "--engine", self._engine]
        flags += ["--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256"]
        flags += ["--jwks-url", self._keys_url] if self._keys_url else ["--jwks", str(self.keys)]
        flags += ["--policy", str(self.policy), "--public-methods", PUBLIC, "--workers", str(self._workers)]
        flags += ["--remember", str(self._remember), "--xds", self._xds, "--admin", "127.0.0.1:0"]
        flags += ["--admin-secret-file", "secret", *self._flags]
        self.server = Program("serve", *flags, folder=self.folder)
        self.admin = self.server.await_event("admin")["address"]
        self.server.await_event("listening")

    def _end_server(self) -> None:
        self.server.__exit__()

    def sign(self, **changes: Any) -> str:
        return self._key.sign(m2m_claims(time.time(), **changes))

    @staticmethod
    def sign_with(key: SigningKey, **changes: Any) -> str:
        return key.sign(m2m_claims(time.time(), **changes))

    def change_policy(self, **changes: Any) -> None:
        beside = self.policy.with_suffix(".new")
        beside.write_text(json.dumps({**POLICY, **changes}), encoding="utf-8")
        beside.replace(self.policy)

    def order(self, verb: str, id: str, **more: Any) -> None:  # noqa: A002 - the order's name for it
        """Give an order on the page."""
        headers = {"authorization": f"Bearer {ADMIN_SECRET}"}
        order = {"verb": verb, "id": id, **more}
        url = f"http://{self.admin}/api/orders"
        httpx2.post(url, json=order, headers=headers, trust_env=False, timeout=PATIENCE).raise_for_status()

    def hops(self) -> int:
        """Return how often the listener that remembers has asked."""
        return self.stat("cluster.authz_memo.upstream_rq_completed")

    def stat(self, name: str) -> int:
        return int(self.admin_of_envoy(f"/stats?filter=^{name}$").split()[-1])

    def version(self) -> str | None:
        """Return which script Envoy has, once it has one."""
        found = json.loads(self.admin_of_envoy("/config_dump?resource=ecds_filters"))
        return next((each.get("version_info") for each in found.get("configs", ())), None)

    def admin_of_envoy(self, path: str) -> str:
        address = (self.folder / "envoy-admin").read_text(encoding="utf-8")
        return httpx2.get(f"http://{address}{path}", trust_env=False, timeout=PATIENCE).text

    def _config(self, grpc_upstream: str, http_upstream: str) -> Mapping[str, Any]:
        extra = {**http_route("http"), **_ASKS_FOR_MORE}
        routes = [extra, grpc_route("grpc"), grpc_web_route("grpc"), http_route("http")]
        options: dict[str, Any] = {"trusted": TrustedMetadata(), "underscores": "ALLOW", "grpc_web": True}
        sockets = [
            f"unix:{self.folder}/authz.sock{'' if self._workers == 1 else f'.{n}'}" for n in range(self._workers)
        ]
        return bootstrap(
            [
                listener("asked", "127.0.0.1:0", routes, authz="authz", **options),
                listener("memo", "127.0.0.1:0", routes, authz="authz_memo", memo=filter_from(self._xds), **options),
            ],
            [
                authz_cluster("authz", sockets),
                authz_cluster("authz_memo", sockets),
                *clusters(self._xds, self._tls),
                cluster("grpc", [grpc_upstream], http2=True),
                cluster("http", [http_upstream], http2=False),
            ],
            admin="127.0.0.1:0",
            node=NODE,
        )


def settled(look: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Return whether ``look`` becomes true before it must count as never happening."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


@contextlib.contextmanager
def served_keys(published: Callable[[], Any]) -> Iterator[str]:
    """Serve a key set, as it is at the time; yield its URL."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(published()).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/jwks"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def client() -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False, timeout=PATIENCE) as found:
        yield found
