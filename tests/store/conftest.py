from collections.abc import Iterator

import pytest

from tests.store.engines import KINDS, Engine


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Return an empty store of each kind that lives as long as the test."""
    with Engine(request.param) as engine:
        yield engine
