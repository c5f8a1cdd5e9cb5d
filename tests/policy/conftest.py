from collections.abc import Callable
from typing import Any

import pytest

from authz.demo.issuer.signing import SigningKey


@pytest.fixture
def sign(ec_key: SigningKey, claims: Callable[..., Any]) -> Callable[..., str]:
    """Return a function that signs a good token, with changes by its arguments."""
    return lambda **changes: ec_key.sign(claims(**changes))
