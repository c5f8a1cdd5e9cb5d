from collections.abc import Iterator
from typing import get_args

import pytest

from authz.demo.issuer.signing import SigningKey
from authz.envoy.v3.external_auth_pb2 import CheckRequest
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.server.serving.server import EngineName
from tests.doubles import FakeIssuer, m2m_claims
from tests.envoy.check.messages import GRPC, bearer, in_headers
from tests.server.serving.serving import LOOPBACK, PATIENCE, BeginWaiting, Served, serving


@pytest.fixture(params=get_args(EngineName))
def engine(request: pytest.FixtureRequest) -> EngineName:
    """Return each engine in turn: whoever asks for it holds for all of them."""
    engine: EngineName = request.param
    return engine


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no call give up waiting for an issuer: on a busy machine it would before the test goes on."""
    monkeypatch.setattr("authz.issuer.introspection._PATIENCE", PATIENCE)
    monkeypatch.setattr("authz.issuer.remote_keys._PATIENCE", PATIENCE)


@pytest.fixture
def authorizer(verifier: Verifier) -> Authorizer:
    return Authorizer(verifier)


@pytest.fixture
def server(authorizer: Authorizer, engine: EngineName) -> Iterator[Served]:
    with serving(authorizer, LOOPBACK, engine=engine) as server:
        yield server


@pytest.fixture
def question(ec_key: SigningKey) -> CheckRequest:
    return in_headers(GRPC, bearer(ec_key.sign(m2m_claims())))


@pytest.fixture
def begin_waiting(issuer: FakeIssuer, other_key: SigningKey, patience: None) -> BeginWaiting:  # noqa: ARG001 - for its effect
    return BeginWaiting(issuer, other_key)
