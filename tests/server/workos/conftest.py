import logging
from collections.abc import Iterator

import pytest

from authz.demo.issuer.signing import SigningKey
from tests.doubles import ManualClock
from tests.server.workos.troubled import TroubledIssuer
from tests.store.engines import Engine


@pytest.fixture(autouse=True)
def _all_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "authz")


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine("valkey") as engine:
        yield engine


@pytest.fixture
def workos(ec_key: SigningKey, clock: ManualClock) -> Iterator[TroubledIssuer]:
    """Return a WorkOS in which there is no organization yet."""
    with TroubledIssuer(ec_key, clock) as issuer:
        yield issuer
