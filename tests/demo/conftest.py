from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
import pytest

from authz.demo.issuer.directory import Application, Directory, Organization, load_directory
from authz.demo.issuer.program import Issuer, IssuerServer, SigningKey
from tests.doubles import PATIENCE

URL = "https://acme.authkit.app"


@dataclass
class Clock:
    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(scope="session")
def rsa_key():
    """Return the one RSA key of the run: making one takes longer than most tests."""
    return SigningKey.generate("rsa-1")


@pytest.fixture
def ec_key():
    return SigningKey.generate("ec-1", "ES256")


@pytest.fixture(scope="session")
def directory() -> Directory:
    """Return the built-in organizations, and one whose applications are unusual."""
    org_id = "org_01JYNITECH0000000000000001"
    applications = (
        Application(
            client_id="client_01JYSIGNIN000000000000000A",
            client_secret="sign in: 100% & more",
            name="Sign-in",
            org_id=org_id,
            scopes=("ledger:read",),
            type="oauth",
        ),
        Application(
            client_id="client_01JYBARE00000000000000000B",
            client_secret="bare-development-secret",
            name="Without scopes",
            org_id=org_id,
            scopes=(),
        ),
    )
    odd = Organization(id=org_id, name="Initech", applications=applications)
    known = load_directory()
    return Directory(audience=known.audience, organizations=(*known.organizations, odd))


@pytest.fixture(scope="session")
def acme(directory):
    return directory.organizations[0].applications[0]


@pytest.fixture(scope="session")
def globex(directory):
    return directory.organizations[1].applications[0]


@pytest.fixture(scope="session")
def sign_in(directory):
    return directory.organizations[2].applications[0]


@pytest.fixture(scope="session")
def bare(directory):
    return directory.organizations[2].applications[1]


@pytest.fixture
def issuer(rsa_key, directory, clock):
    return Issuer(URL, directory=directory, keys=[rsa_key], clock=clock)


@pytest.fixture(scope="session")
def web() -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False, timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="session")
def shared_server(rsa_key, directory) -> Iterator[IssuerServer]:
    """For tests that leave the issuer unchanged, or change only what other tests do not use."""
    with IssuerServer(Issuer(directory=directory, keys=[rsa_key], clock=Clock())) as server:
        yield server


@pytest.fixture
def own_server(directory, ec_key, clock) -> Iterator[IssuerServer]:
    """For tests that rotate, revoke or stop; its keys are quick to make."""
    with IssuerServer(Issuer(directory=directory, keys=[ec_key], clock=clock)) as server:
        yield server


@pytest.fixture(scope="session")
def http(shared_server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=shared_server.url, trust_env=False, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def own_http(own_server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=own_server.url, trust_env=False, timeout=PATIENCE) as client:
        yield client
