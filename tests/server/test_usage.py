"""``authz serve`` tells the store what each organization uses, from one process and from several workers."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from authz import Authorizer, Verifier
from authz.call.call import Call
from authz.decisions.decision import Evidence
from authz.decisions.usage_report import Query
from authz.demo.issuer.signing import SigningKey
from authz.store.shared_state import SharedState
from authz.store.usage.counts import UsageStore
from tests.decisions.samples import ACME
from tests.doubles import AUDIENCE, ISSUER, ORG, jwks, m2m_claims
from tests.envoy.check.messages import GRPC, bearer, in_headers
from tests.programs import PATIENCE, Program
from tests.server.serving.serving import LOOPBACK, ask
from tests.store.engines import Engine

DAY = 86_400


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine("valkey") as engine:
        yield engine


def used(engine: Engine, by: str) -> dict[tuple[str | int, ...], int]:
    now = time.time()
    query = Query(tuple(by.split(",")), since=now - DAY)  # type: ignore[arg-type]
    report = UsageStore(engine.store()).read(query, now)
    return {line[: len(query.by)]: int(line[len(query.by)]) for line in report.lines()}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_every_call_is_in_the_store_once_the_server_has_ended(
    engine: Engine, tmp_path: Path, ec_key: SigningKey, workers: str
) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)), encoding="utf-8")
    issuer = ("--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256", "--jwks", "jwks.json")
    served = ("--listen", LOOPBACK, "--http-listen", LOOPBACK, "--workers", workers, "--log-format", "json")
    wanted = ("--store", engine.url, "--usage-metrics-by-organization", "10")
    token = ec_key.sign(m2m_claims(time.time()))
    with Program("serve", *issuer, *served, *wanted, folder=tmp_path, TMPDIR=str(tmp_path)) as program:
        probes = program.await_event("probes")["address"]
        [address] = program.await_event("listening")["addresses"]
        allowed = [ask(address, in_headers(GRPC, bearer(token))) for _ in range(20)]
        denied = [ask(address, in_headers(GRPC)) for _ in range(3)]
        deadline, figure = time.monotonic() + PATIENCE, ""
        while 'verdict="allowed"} 20.0' not in figure and time.monotonic() < deadline:
            figure = httpx2.get(f"http://{probes}/metrics", trust_env=False, timeout=PATIENCE).text
        program.end()

    assert set(allowed) == {0}
    assert 0 not in denied
    assert used(engine, "organization,verdict,door") == {
        (ORG, "allowed", "envoy"): 20,
        ("", "denied", "envoy"): 3,
    }
    assert f'authz_organization_checks_total{{organization="{ORG}",verdict="allowed"}} 20.0' in figure


def test_a_program_that_shares_its_state_tells_the_store_as_well(engine: Engine, verifier: Verifier) -> None:
    authorizer, evidence = Authorizer(verifier), Evidence()
    evidence.principal = replace(ACME, org_id="org_b")
    with SharedState(engine.url, authorizer):
        for _ in range(3):
            authorizer.telling.decided(Call(method="/a.B/C", metadata=()), evidence, None, 0.0, door="grpc")
    told = UsageStore(engine.store()).read(Query(("organization", "door")), verifier.clock.time())

    assert list(told.lines()) == [("org_b", "grpc", 3, 3, 0)]
