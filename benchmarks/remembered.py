"""What a call costs whose answer Envoy repeats: CPU of Envoy and server, above a listener without authorization."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from authz.call.metadata import TrustedMetadata
from authz.demo.processes import Envoy
from authz.envoy.config import bootstrap, cluster, listener
from authz.envoy.config.authz_cluster import Tls
from authz.envoy.config.memo import NODE, clusters, filter_from
from benchmarks import ext_authz
from benchmarks.ext_authz import authz_serve
from benchmarks.h2load import GRPC, load
from benchmarks.material import claims, signing_key
from benchmarks.processes import Server

ROUNDS = 6
REQUESTS = 10_000
CONNECTIONS = 32
WARM = 64
PATH = "/ledger.v1.Ledger/List"
DOORS = ("no authorization", "jwt_authn", "jwt_authn cached", "asked", "remembered")
MOST_OF_ASKED, MOST_OF_JWT_AUTHN = 0.35, 1.0
"""What a remembered call may cost, compared with ext_authz on the native engine, and jwt_authn without its cache."""


def measure() -> dict[str, object]:
    """Return the figures."""
    token = signing_key().sign(claims())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authz-bench-")))
        xds = f"unix:{folder}/xds.sock"
        asked = stack.enter_context(authz_serve("native", listen=f"unix:{folder}/asked.sock"))
        more = ("--remember", "300", "--xds", xds)
        remembered = stack.enter_context(authz_serve("native", *more, listen=f"unix:{folder}/remembered.sock"))
        envoy = Envoy(_config(folder, xds), folder)
        stack.callback(envoy.stop)
        targets, proxy = envoy.addresses(), Server(pid=envoy.pid, port=0)
        servers = {"asked": [asked], "remembered": [remembered]}

        def run(door: str, *, http1: bool) -> Callable[[], ext_authz._Figure]:
            url = f"http://{targets[door]}{PATH}"
            headers = (f"authorization: Bearer {token}", *(() if http1 else GRPC))
            work = partial(load, url, headers=headers, http1=http1)
            work(WARM, connections=1)
            return lambda: ext_authz._run(  # noqa: SLF001 - as above
                [proxy, *servers.get(door, [])], REQUESTS, lambda: work(REQUESTS, connections=CONNECTIONS)
            )

        return {
            kind: _told(ext_authz._in_turn({door: run(door, http1=http1) for door in DOORS}, ROUNDS))  # noqa: SLF001
            for kind, http1 in (("HTTP/1.1", True), ("gRPC", False))
        }


def _told(figures: dict[str, Any]) -> dict[str, object]:
    least = {door: min(figure.cpu for figure in row) for door, row in figures.items()}
    middle = {door: median(figure.cpu for figure in row) for door, row in figures.items()}
    bare = least["no authorization"]
    above = {door: round(cpu - bare, 1) for door, cpu in least.items() if door != "no authorization"}
    return {
        "no authorization, CPU us": round(bare, 1),
        "above it, least of all rounds": above,
        "median": {door: round(cpu - middle["no authorization"], 1) for door, cpu in middle.items()},
        "remembered / asked": round(above["remembered"] / above["asked"], 2),
        "remembered / jwt_authn": round(above["remembered"] / above["jwt_authn"], 2),
    }


def _config(folder: Path, xds: str) -> dict[str, Any]:
    answer = [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]
    trusted = TrustedMetadata()
    listeners = {
        door: listener(
            door,
            "127.0.0.1:0",
            answer,
            authz=door if door == "remembered" else "asked",
            trusted=trusted,
            memo=filter_from(xds) if door == "remembered" else None,
        )
        for door in DOORS
    }
    for door, found in listeners.items():
        filters = found["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
        if door == "no authorization":
            del filters[0]
        elif door.startswith("jwt_authn"):
            filters[0] = ext_authz._jwt_authn()  # noqa: SLF001 - of the same package
            if door == "jwt_authn":
                del filters[0]["typed_config"]["providers"]["workos"]["jwt_cache_config"]
    authz = [cluster(name, [f"unix:{folder}/{name}.sock"], http2=True) for name in ("asked", "remembered")]
    return bootstrap(list(listeners.values()), [*authz, *clusters(xds, Tls())], admin="127.0.0.1:0", node=NODE)
