"""What Prometheus is told, decision by decision and from several workers together."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from authz.call.requirements import Assurance
from authz.demo.issuer.signing import SigningKey
from authz.envoy.check.servicer import AuthorizationServicer
from authz.envoy.v3.external_auth_pb2 import CheckRequest
from authz.errors import ConfigError
from authz.issuer.introspection import Introspector
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.organizations.directory import Directory
from authz.server.operations.metrics import Metrics, SharedMetrics
from tests.doubles import ISSUER, FakeTransport, ManualClock, m2m_claims
from tests.envoy.check.messages import GRPC, bearer, in_headers

Figures = dict[tuple[str, ...], float]


def figures(text: bytes) -> Figures:
    """Return values by name and the values of labels, in the order of their names."""
    return {
        (sample.name, *[value for _, value in sorted(sample.labels.items())]): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def read_from(metrics: Metrics, authorizer: Authorizer, *, is_ready: bool = True, pending: int = 0) -> Figures:
    metrics.refresh(authorizer, is_ready=is_ready, pending=pending)
    return figures(metrics.text())


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(engine="native")


@pytest.fixture
def authorizer(verifier: Verifier, metrics: Metrics) -> Authorizer:
    return Authorizer(verifier, observers=[metrics])


@pytest.fixture
def read(metrics: Metrics, authorizer: Authorizer) -> Callable[[], Figures]:
    return lambda: read_from(metrics, authorizer)


@pytest.fixture
def decide(authorizer: Authorizer) -> Callable[[CheckRequest], object]:
    servicer = AuthorizationServicer(authorizer)
    return lambda question: asyncio.run(servicer.check(question.SerializeToString(), None))


def test_checks_are_counted_by_outcome(
    decide: Callable[[CheckRequest], object], read: Callable[[], Figures], question: CheckRequest, ec_key: SigningKey
) -> None:
    expired = in_headers(GRPC, bearer(ec_key.sign(m2m_claims(exp=1, iat=0))))
    for one in (question, question, question, expired, in_headers(GRPC)):
        decide(one)
    counted = read()

    assert counted["authz_checks_total", "", "allowed"] == 3
    assert counted["authz_checks_total", "token_expired", "denied"] == 1
    assert counted["authz_checks_total", "token_missing", "denied"] == 1
    assert counted["authz_check_seconds_count",] == 5


def test_checks_are_counted_by_evidence(
    decide: Callable[[CheckRequest], object], read: Callable[[], Figures], question: CheckRequest
) -> None:
    for one in (question, question, question, in_headers(GRPC)):
        decide(one)
    counted = read()

    sources = {source: counted["authz_evidence_total", source] for source in ("signature", "cache", "none")}
    assert sources == {"signature": 1, "cache": 2, "none": 1}


def test_outage_is_counted_as_undecided(
    decide: Callable[[CheckRequest], object],
    read: Callable[[], Figures],
    question: CheckRequest,
    transport: FakeTransport,
) -> None:
    transport.down()
    decide(question)
    counted = read()

    assert counted["authz_checks_total", "key_set_unavailable", "undecided"] == 1
    assert counted["authz_jwks_failing", ISSUER] == 1
    assert counted["authz_jwks_fetches_total", ISSUER, "failed"] == 1
    assert counted["authz_fetch_failures_total", "connect", "keys"] == 1


def test_nothing_is_counted_twice(
    decide: Callable[[CheckRequest], object], read: Callable[[], Figures], question: CheckRequest
) -> None:
    decide(question)
    read()

    assert {read()["authz_checks_total", "", "allowed"], read()["authz_jwks_fetches_total", ISSUER, "ok"]} == {1}


def test_no_label_comes_from_a_caller(
    decide: Callable[[CheckRequest], object], metrics: Metrics, authorizer: Authorizer, ec_key: SigningKey
) -> None:
    mark = "chosenbythecaller"
    claims = m2m_claims(org_id=f"org_{mark}", client_id=mark, iss=f"https://{mark}.example")
    for token in (ec_key.sign(claims), ec_key.sign(m2m_claims(), {"kid": mark}), mark, f"{mark}.{mark}.{mark}"):
        decide(in_headers(GRPC, bearer(token), path=f"/{mark}/{mark}"))

    metrics.refresh(authorizer, is_ready=True, pending=0)

    assert mark not in metrics.text().decode()


def test_state_is_what_it_is_when_somebody_asks(  # noqa: PLR0917 - fixtures
    metrics: Metrics,
    authorizer: Authorizer,
    read: Callable[[], Figures],
    decide: Callable[[CheckRequest], object],
    question: CheckRequest,
    clock: ManualClock,
) -> None:
    cold = read_from(metrics, authorizer, is_ready=False, pending=7)
    decide(question)
    clock.advance(12)
    warm = read()

    assert (cold["authz_ready", "0"], cold["authz_pending_checks",], cold["authz_jwks_keys", ISSUER]) == (0, 7, 0)
    assert ("authz_jwks_age_seconds", ISSUER) not in cold
    assert (warm["authz_ready", "0"], warm["authz_pending_checks",], warm["authz_jwks_keys", ISSUER]) == (1, 0, 1)
    assert warm["authz_jwks_age_seconds", ISSUER] == 12
    assert (warm["authz_workers",], warm["authz_worker_restarts_total",]) == (1, 0)
    assert [name for name in warm if name[0] == "authz_build_info" and "native" in name]


def test_questions_to_the_issuer_are_counted(verifier: Verifier, transport: FakeTransport) -> None:
    introspector = Introspector(ISSUER, client_id="c", client_secret="s", transport=transport)
    metrics = Metrics(engine="grpcio")
    authorizer = Authorizer(verifier, introspector=introspector, assurance=Assurance())
    counters = introspector.counters
    counters.active, counters.inactive, counters.failures, counters.refused, counters.overloaded = 4, 3, 2, 1, 5
    counted = read_from(metrics, authorizer)

    results = {name[1]: value for name, value in counted.items() if name[0] == "authz_introspection_requests_total"}
    assert results == {"active": 4, "inactive": 3, "failed": 2, "refused": 1, "overloaded": 5}


def test_failures_of_other_servers_are_counted_by_cause(verifier: Verifier, transport: FakeTransport) -> None:
    introspector = Introspector(ISSUER, client_id="c", client_secret="s", transport=transport)
    directory = Directory(lambda _: None)
    authorizer = Authorizer(verifier, introspector=introspector, assurance=Assurance(), directory=directory)
    introspector.causes.update({"status 4xx": 2, "certificate": 1})
    directory.causes.update({"other": 3})
    counted = read_from(Metrics(engine="grpcio"), authorizer)

    causes = {name[1:]: value for name, value in counted.items() if name[0] == "authz_fetch_failures_total"}
    assert causes == {
        ("status 4xx", "introspection"): 2,
        ("certificate", "introspection"): 1,
        ("other", "organizations"): 3,
    }


def test_dropped_lines_of_the_decision_log_are_counted(authorizer: Authorizer) -> None:
    metrics = Metrics(engine="grpcio", dropped=lambda: 5)

    assert read_from(metrics, authorizer)["authz_decision_log_dropped_total",] == 5


# ---- Of several workers ----

_WORKER = """
import sys
from authz.judge.authorizer import Authorizer
from authz.call.call import Call
from authz.decisions.decision import Decision, Evidence
from authz.server.operations.metrics import Metrics
from authz.issuer.verifier import Verifier

authorizer = Authorizer(Verifier(issuer="https://acme.example", audience="a"))
metrics = Metrics(engine="grpcio", worker=int(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    metrics(Decision(Call(method="/a/b", metadata=()), Evidence(), None, 0.002))
metrics.refresh(authorizer, is_ready=True, pending=2)
"""


@pytest.fixture
def shared() -> Iterator[SharedMetrics]:
    with SharedMetrics() as shared:
        yield shared


def let_decide(shared: SharedMetrics, worker: int, decisions: int) -> None:
    command = [sys.executable, "-c", _WORKER, str(worker), str(decisions)]
    subprocess.run(command, check=True, env={**os.environ, **shared.variables}, timeout=120)


def test_workers_without_a_folder_for_their_figures_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose root is read-only, and that has no /tmp."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))

    with pytest.raises(ConfigError, match=r"^workers: .*TMPDIR"):
        SharedMetrics()


def test_figures_of_workers_are_added_up(shared: SharedMetrics) -> None:
    let_decide(shared, 0, 3)
    let_decide(shared, 1, 4)
    counted = figures(shared.text(running=2, restarts=1, hangs=0))

    assert counted["authz_checks_total", "", "allowed"] == counted["authz_check_seconds_count",] == 7
    assert (counted["authz_ready", "0"], counted["authz_ready", "1"], counted["authz_pending_checks",]) == (1, 1, 4)
    assert not [name for name in counted if "pid" in name]


def test_successor_of_a_dead_worker_counts_on(shared: SharedMetrics) -> None:
    let_decide(shared, 0, 3)
    shared.ended(0)
    between = figures(shared.text(running=2, restarts=1, hangs=0))
    let_decide(shared, 0, 4)
    after = figures(shared.text(running=2, restarts=1, hangs=0))

    assert between["authz_checks_total", "", "allowed"] == 3
    assert ("authz_ready", "0") not in between
    assert (after["authz_checks_total", "", "allowed"], after["authz_ready", "0"]) == (7, 1)
    assert (after["authz_workers",], after["authz_worker_restarts_total",]) == (2, 1)
