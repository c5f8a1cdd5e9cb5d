"""A running server keeps to its files: each of its processes, and without a pause."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.demo.issuer.signing import SigningKey
from tests.doubles import eventually, jwks, m2m_claims
from tests.server.workers.test_workers import Workers, check

OK, DENIED = 0, 7

GOOD = {"name": "good", "allow_rules": [{"name": "all"}]}
CLOSED = {"name": "closed", "allow_rules": [{"name": "others", "request": {"paths": ["/others/*"]}}]}


def replace(path: Path, policy: object) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(policy))
    new.replace(path)


@pytest.fixture
def token(ec_key: SigningKey) -> str:
    return ec_key.sign(m2m_claims(time.time()))


@pytest.fixture
def workers(tmp_path: Path, ec_key: SigningKey) -> Iterator[Workers]:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    for name, policy in (("policy.json", GOOD), ("next.json", CLOSED)):
        (tmp_path / name).write_text(json.dumps(policy))
    flags = ("--jwks", "jwks.json", "--policy", "policy.json", "--shadow", "next.json")
    with Workers(tmp_path, *flags, "--listen", f"unix:{tmp_path}/authz.sock") as workers:
        workers.until(lambda: workers.serving() == {0, 1})
        yield workers


def test_every_worker_follows_the_file_of_organizations_that_the_policy_names(
    tmp_path: Path, ec_key: SigningKey
) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    (tmp_path / "policy.json").write_text(json.dumps({**GOOD, "organizations_file": "orgs.jsonl"}))
    claims = m2m_claims(time.time())
    caller, token = {"id": claims["org_id"]}, ec_key.sign(claims)
    replace(tmp_path / "orgs.jsonl", caller)
    with Workers(
        tmp_path, "--jwks", "jwks.json", "--policy", "policy.json", "--listen", f"unix:{tmp_path}/authz.sock"
    ) as workers:
        workers.until(lambda: workers.serving() == {0, 1})
        before = [check(address, token) for address in workers.addresses[:2]]
        replace(tmp_path / "orgs.jsonl", {**caller, "status": "suspended"})

        assert before == [OK, OK]
        assert eventually(
            lambda: [check(address, token) for address in workers.addresses[:2]] == [DENIED, DENIED], 0.05
        )


def test_every_worker_follows_the_files_and_keeps_the_last_good_ones(
    workers: Workers, tmp_path: Path, token: str
) -> None:
    path, own = tmp_path / "policy.json", workers.addresses[:2]

    def codes() -> list[int]:
        return [check(address, token) for address in own]

    before = codes()
    replace(path, CLOSED)
    assert eventually(lambda: codes() == [DENIED, DENIED], 0.05)
    replace(path, {**GOOD, "nme": "typing error"})
    failing = {"ready": True, "policy": "last reload failed"}
    assert eventually(lambda: workers.get("/readyz").json() == failing, 0.05)
    during = codes(), workers.get("/readyz").status_code, workers.get("/healthz").json()
    assert eventually(lambda: workers.figure("authz_policy_failing") == 1, 0.05)
    replace(path, GOOD)

    assert before == [OK, OK]
    assert during == ([DENIED, DENIED], 200, {"alive": True, "policy": "last reload failed"})
    assert eventually(lambda: codes() == [OK, OK], 0.05)
    assert eventually(lambda: workers.get("/readyz").json() == {"ready": True}, 0.05)
    assert eventually(lambda: workers.figure('authz_policy_reloads_total{result="ok"}') == 4, 0.05)
    assert workers.figure("authz_policy_loaded_timestamp_seconds") > 0
    assert eventually(lambda: workers.figure('authz_shadow_differences_total{change="allowed_to_denied"}') >= 4, 0.05)
