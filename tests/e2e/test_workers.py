"""Workers behind one Envoy: each of them decides its share."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest

from authz.demo.issuer.signing import SigningKey
from authz.demo.processes import Envoy
from authz.envoy.config.authz_cluster import endpoints
from authz.envoy.config.formats import Ingress, bootstrap
from tests.doubles import jwks
from tests.e2e.test_printed_config import VERIFIER
from tests.programs import Program

CHECKS = 400


class Site:
    """Several workers and an Envoy with the printed bootstrap."""

    def __init__(self, server: Program, proxy: Envoy) -> None:
        self.server, self._proxy = server, proxy

    def ask(self, number: int) -> None:
        """Make requests, one after the other, each of which is refused by a worker."""
        with httpx2.Client(base_url=f"http://{self._proxy.addresses()['ingress']}") as client:
            for _ in range(number):
                assert client.get("/").status_code == 401

    def asked(self) -> list[int]:
        """Return how many requests each endpoint of the workers was asked about, as Envoy counts."""
        hosts = self._proxy.ask("/clusters", format="json")["cluster_statuses"]
        [workers] = [each["host_statuses"] for each in hosts if each["name"] == "authz"]
        counts = [{one["name"]: int(one.get("value", 0)) for one in host["stats"]} for host in workers]
        return [count["rq_total"] for count in counts]


@contextmanager
def site(folder: Path, key: SigningKey, workers: int, listen: str, *more: str) -> Iterator[Site]:
    (folder / "jwks.json").write_text(json.dumps(jwks(key)), encoding="utf-8")
    serve = ("serve", "--workers", str(workers), "--listen", listen, *VERIFIER, "--jwks", "jwks.json")
    with ExitStack() as running:
        server = running.enter_context(Program(*serve, folder=folder))
        server.await_event("listening")
        ingress = Ingress(
            authz=endpoints([listen], workers=workers),
            listen="127.0.0.1:0",
            upstream="127.0.0.1:9",
            http_upstream="127.0.0.1:9",
            admin="127.0.0.1:0",
        )
        proxy = Envoy(bootstrap(ingress).data, folder, *more)
        running.callback(proxy.stop)
        yield Site(server, proxy)


@pytest.mark.parametrize("workers", [2, 4])
def test_each_worker_with_a_socket_of_its_own_decides_its_share(
    tmp_path: Path, ec_key: SigningKey, workers: int
) -> None:
    with site(tmp_path, ec_key, workers, f"unix:{tmp_path}/authz") as running:
        running.ask(CHECKS)
        decided = running.asked()

    assert (len(decided), sum(decided)) == (workers, CHECKS)
    assert min(decided) >= CHECKS / (2 * workers)
