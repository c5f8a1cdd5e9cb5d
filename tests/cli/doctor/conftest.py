"""A real issuer, and the command as a program uses it."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest

from authz import cli
from authz.demo.issuer.directory import Application
from authz.demo.issuer.program import Issuer, IssuerServer, SigningKey
from tests.programs import PATIENCE
from tests.store.engines import free_port


class Diagnosis(NamedTuple):
    """What the command has said, and its exit code."""

    status: int
    findings: Sequence[dict[str, Any]]
    text: str

    def of(self, check: str) -> dict[str, Any]:
        """Return the one finding of a check."""
        [found] = [each for each in self.findings if each["check"] == check]
        return found

    def faults(self) -> dict[str, str]:
        """Return the levels of what is not good, by code."""
        return {each["code"]: each["level"] for each in self.findings if each["code"] is not None}

    def with_code(self, code: str) -> dict[str, Any]:
        """Return the one finding of that code."""
        [found] = [each for each in self.findings if each["code"] == code]
        return found


Diagnose = Callable[..., Diagnosis]


@pytest.fixture
def diagnose(
    no_settings: None,  # noqa: ARG001 - takes all variables away
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    free_address: str,
) -> Diagnose:
    """Return a function that runs the command with arguments and variables, listening on a free port unless told."""

    def diagnose(*arguments: str, **variables: str) -> Diagnosis:
        for name, value in {"AUTHZ_LISTEN": free_address, **variables}.items():
            monkeypatch.setenv(name, value)
        patient = () if "--timeout" in arguments else ("--timeout", str(PATIENCE / 2))
        status = cli.run(("doctor", "--json", *patient, *arguments))
        captured = capsys.readouterr()
        report = json.loads(captured.out)
        assert report["status"] == status
        return Diagnosis(status, report["findings"], captured.out + captured.err)

    return diagnose


@pytest.fixture
def free_address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def live_issuer(rsa_key: SigningKey) -> Iterator[IssuerServer]:
    with IssuerServer(Issuer(keys=[rsa_key])) as server:
        yield server


@pytest.fixture
def application(live_issuer: IssuerServer) -> Application:
    return next(each for each in live_issuer.issuer.directory.applications if each.type == "m2m")


@pytest.fixture
def settings(live_issuer: IssuerServer) -> dict[str, str]:
    """Return the variables that suit the live issuer."""
    return {"AUTHZ_ISSUER": live_issuer.url, "AUTHZ_AUDIENCE": live_issuer.issuer.directory.audience}


@pytest.fixture
def credentials(application: Application) -> dict[str, str]:
    return {"AUTHZ_CLIENT_ID": application.client_id, "AUTHZ_CLIENT_SECRET": application.client_secret}


@pytest.fixture
def introspection(application: Application) -> dict[str, str]:
    return {
        "AUTHZ_INTROSPECTION_CLIENT_ID": application.client_id,
        "AUTHZ_INTROSPECTION_CLIENT_SECRET": application.client_secret,
    }
