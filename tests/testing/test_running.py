"""The development issuer runs on a port of this machine, for programs that fetch tokens and keys themselves."""

import contextlib
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from authz import ClientCredentials, ConfigError, KeyNotFoundError, TokenExpiredError, Verifier
from authz.demo.issuer.directory import DEFAULT_FILE
from authz.testing import Issuer, RunningIssuer, running_issuer
from tests import programs


@pytest.fixture(scope="module")
def issuer():
    with running_issuer() as issuer:
        yield issuer


@pytest.fixture
def verifier(issuer: RunningIssuer):
    with contextlib.closing(Verifier(issuer=issuer.url, audience=issuer.audience)) as verifier:
        yield verifier


def test_a_client_gets_a_token_that_names_its_organization(issuer: RunningIssuer, verifier: Verifier) -> None:
    source = ClientCredentials(issuer.url, client_id=issuer.client_id, client_secret=issuer.client_secret)

    with contextlib.closing(source):
        principal = verifier.verify(source.token())

    assert (principal.org_id, principal.client_id) == (issuer.org_id, issuer.client_id)


def test_every_application_gets_one(issuer: RunningIssuer, verifier: Verifier) -> None:
    named = [verifier.verify(issuer.token(each.client_id)).org_id for each in issuer.applications]

    assert named == [each.org_id for each in issuer.applications]
    assert len(set(named)) > 1


def test_a_token_may_be_any(issuer: RunningIssuer, verifier: Verifier) -> None:
    assert verifier.verify(issuer.token(plan="gold", scope=None)).scopes == set()
    with pytest.raises(TokenExpiredError):
        verifier.verify(issuer.token(expires_in=-60))
    with pytest.raises(LookupError):
        issuer.token("client_nobody")


def test_its_endpoints_are_where_it_says(issuer: RunningIssuer) -> None:
    credentials = {"client_id": issuer.client_id, "client_secret": issuer.client_secret}

    source = ClientCredentials(token_url=issuer.token_endpoint, **credentials)
    verifier = Verifier(issuer=issuer.url, audience=issuer.audience, jwks_url=issuer.jwks_url)

    with contextlib.closing(source), contextlib.closing(verifier):
        assert verifier.verify(source.token()).org_id == issuer.org_id


def test_a_program_that_is_given_its_variables_accepts_its_tokens(issuer: RunningIssuer, tmp_path: Path) -> None:
    done = programs.run(
        "verify", folder=tmp_path, command=(sys.executable, "-m", "authz"), stdin=issuer.token(), **issuer.environment
    )

    assert (done.returncode, issuer.org_id in done.stdout) == (0, True)


def test_organizations_may_be_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "organizations.yaml"
    file.write_text(DEFAULT_FILE.read_text().replace("org_01JYACME000000000000000001", "org_mine"))

    with running_issuer(file) as issuer:
        assert issuer.org_id == "org_mine"
    with pytest.raises(ConfigError), running_issuer(tmp_path / "missing.yaml"):
        pass


def test_it_is_reached_from_this_machine_only_and_is_gone_after_the_block() -> None:
    with running_issuer() as issuer:
        assert issuer.url.startswith("http://127.0.0.1:")
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(issuer.jwks_url, timeout=programs.PATIENCE)  # noqa: S310 - the http URL above
    with pytest.raises(ConfigError, match="can be reached from other machines"), running_issuer(listen="0.0.0.0:0"):
        pass


def test_no_secret_is_shown(issuer: RunningIssuer) -> None:
    assert issuer.client_secret not in repr(issuer)


def test_an_issuer_in_memory_has_other_tokens(verifier: Verifier, issuer: RunningIssuer) -> None:
    with pytest.raises(KeyNotFoundError):
        verifier.verify(Issuer(issuer.url, audience=issuer.audience).token(issuer.org_id))
