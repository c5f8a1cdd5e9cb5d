"""The plugin for pytest: fixtures. Every run of pytest loads it, so it loads nothing before a test asks for it."""

import typing
from collections.abc import Iterator

import pytest

if typing.TYPE_CHECKING:
    from authz.testing.acting import Acting
    from authz.testing.issuer import Issuer
    from authz.testing.running import RunningIssuer


@pytest.fixture(scope="session")
def authz_issuer() -> "Issuer":
    """Return an issuer in memory: authz.testing.Issuer()."""
    from authz.testing.issuer import Issuer  # noqa: PLC0415 - as the module says

    return Issuer()


@pytest.fixture(scope="session")
def authz_running_issuer() -> "Iterator[RunningIssuer]":
    """Run the development issuer on a port of this machine: authz.testing.running_issuer()."""
    from authz.testing.running import running_issuer  # noqa: PLC0415 - as the module says

    with running_issuer() as issuer:
        yield issuer


@pytest.fixture(scope="session")
def acting_as() -> "typing.Callable[..., Acting]":
    """Return authz.testing.acting_as, which makes somebody the caller in a with block."""
    from authz.testing.acting import acting_as  # noqa: PLC0415 - as the module says

    return acting_as
