"""Streams that are opened and reset at once (CVE-2023-44487): what comes of them behind Envoy."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from authz.call.metadata import TrustedMetadata
from authz.demo.issuer.signing import SigningKey
from authz.demo.processes import Envoy
from authz.envoy.config import bootstrap, listener
from authz.envoy.config.authz_cluster import authz_cluster
from authz.server.serving.server import EngineName
from tests.doubles import AUDIENCE, ISSUER, jwks
from tests.programs import PATIENCE, Program
from tests.server.serving.raw_client import RawClient

RESETS = 200
"""Of one connection: Envoy ends one with more than twice as many streams if half of them were reset at once."""


class Site:
    """Envoy, and the authorization server that it asks."""

    def __init__(self, folder: Path, listen: str, authz: str) -> None:
        answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
        main = listener("main", listen, [answer], authz="authz", trusted=TrustedMetadata())
        self.envoy = Envoy(bootstrap([main], [authz_cluster("authz", [authz])], admin="127.0.0.1:0"), folder)
        self.address = self.envoy.addresses()["main"]
        self._admin = (folder / "envoy-admin").read_text(encoding="utf-8")

    def status(self) -> int:
        return httpx2.get(f"http://{self.address}/", trust_env=False, timeout=PATIENCE).status_code

    def figure(self, name: str) -> int:
        text = httpx2.get(f"http://{self._admin}/stats", trust_env=False, timeout=PATIENCE).text
        found = re.search(rf"^{re.escape(name)}: (\d+)$", text, re.MULTILINE)
        return int(found[1]) if found else 0


@pytest.fixture
def site(tmp_path: Path, ec_key: SigningKey, engine: EngineName) -> Iterator[Site]:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    verifier = ("--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256", "--jwks", "jwks.json")
    with Program("serve", "--engine", engine, "--listen", "127.0.0.1:0", *verifier, folder=tmp_path) as program:
        [address] = program.await_event("listening")["addresses"]
        program.await_event("health", status="SERVING")
        site = Site(tmp_path, "127.0.0.1:0", address)
        try:
            yield site
        finally:
            site.envoy.stop()


def test_streams_that_are_reset_at_once_become_no_checks(site: Site) -> None:
    connections, asked = 5, site.figure("cluster.authz.upstream_rq_total")
    for _ in range(connections):
        with RawClient(site.address) as client:
            client.reset(range(1, 2 * RESETS, 2), "/")
            client.await_pong()
    asked = site.figure("cluster.authz.upstream_rq_total") - asked

    assert site.figure("http.main.downstream_rq_rx_reset") == connections * RESETS
    # One for each time that Envoy reads of a connection; else all of them.
    assert asked < connections * RESETS / 4
    assert site.figure("http.main.ext_authz.error") == 0
    assert site.status() == 401
