"""``authz serve`` counts calls together with all processes that share its store, be they servers or workers."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from authz.demo.issuer.signing import SigningKey
from tests.doubles import AUDIENCE, ISSUER, jwks, m2m_claims
from tests.envoy.check.messages import GRPC, bearer, in_headers
from tests.programs import PATIENCE, Program
from tests.server.serving.serving import LOOPBACK, ask
from tests.store.engines import Engine

PLAN = {"quotas": {"p": {"requests_per_second": 0.001, "burst": 10}}, "default_quota": "p"}


GRANTED = 'authz_quota_leases_total{result="granted"}'

# Run by every Python below, before all else. A call waits 50 ms for the store, and is counted without it then: on a
# busy machine that comes about though nothing is wrong.
PATIENT = f"""
import authz.store.trips
authz.store.trips.PATIENCE = {PATIENCE}
"""


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine("valkey") as engine:
        yield engine


@pytest.mark.parametrize(("workers", "serves"), [("1", "grpcio"), ("2", "native")])
def test_servers_that_share_a_store_admit_a_plan_together(
    engine: Engine, tmp_path: Path, ec_key: SigningKey, workers: str, serves: str
) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)), encoding="utf-8")
    (tmp_path / "patient").mkdir()
    (tmp_path / "patient/sitecustomize.py").write_text(PATIENT, encoding="utf-8")
    variables = {"TMPDIR": str(tmp_path), "PYTHONPATH": str(tmp_path / "patient")}
    policy = {"name": "p", "allow_rules": [{"name": "all"}], **PLAN}
    (tmp_path / "policy.json").write_text(json.dumps(policy), encoding="utf-8")
    issuer = ("--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256", "--jwks", "jwks.json")
    listens = ("--listen", LOOPBACK, "--http-listen", LOOPBACK, "--engine", serves, "--workers", workers)
    wanted = ("--policy", "policy.json", "--store", engine.url, "--log-format", "json")
    question = in_headers(GRPC, bearer(ec_key.sign(m2m_claims(time.time()))))
    with ExitStack() as running:
        programs = [
            running.enter_context(Program("serve", *issuer, *listens, *wanted, folder=tmp_path, **variables))
            for _ in range(2)
        ]
        answers, figures = [], ""
        probes = [program.await_event("probes")["address"] for program in programs]
        for program in programs:
            [address] = program.await_event("listening")["addresses"]
            answers += [ask(address, question) for _ in range(20)]
        deadline = time.monotonic() + PATIENCE
        while GRANTED not in figures and time.monotonic() < deadline:
            figures = httpx2.get(f"http://{probes[0]}/metrics", trust_env=False, timeout=PATIENCE).text
        for program in programs:
            program.end()

    assert answers.count(0) == 10
    assert set(answers) == {0, 8}
    assert GRANTED in figures
