import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.demo.issuer.signing import SigningKey
from tests.doubles import m2m_claims
from tests.missing import leave_out
from tests.web.site import Site

ORIGIN = "https://app.example"
CLIENTS = Path(__file__).parents[2] / ".cache/web-clients"


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory, ec_key: SigningKey) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("web"), ec_key, ORIGIN) as site:
        yield site


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    running.seen.clear()
    yield running
    running.judge.error = None


@pytest.fixture
def token(ec_key: SigningKey) -> str:
    return ec_key.sign(m2m_claims(time.time()))


@pytest.fixture(scope="session")
def npm_clients() -> Path:
    """Return the folder in which `make test` has installed the clients from npm."""
    if shutil.which("node") is None or not (CLIENTS / "node_modules").exists():
        leave_out("clients from npm, because they are not installed", "make web-clients, where there is npm")
    return CLIENTS
