import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from authz.demo import children
from authz.demo.issuer.signing import SigningKey
from authz.issuer.verifier import Verifier
from authz.settings.variables import is_ours
from tests.doubles import AUDIENCE, ISSUER, FakeIssuer, FakeTransport, ManualClock, m2m_claims
from tests.lanes import LANES, Guard, lane_of
from tests.missing import tell
from tests.pairs import beyond_one_engine, combinations_beyond_pairs

# A shell has what it starts in the background ignore it, and what that starts as well.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# As in the Makefile, where the tests are run without it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# The same examples on every run: a red build must say something about the change.
hypothesis.settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("repeatable"), max_examples=10)
hypothesis.settings.load_profile("repeatable")


def _is_no_noise_of_grpc(record: logging.LogRecord) -> bool:
    # grpc.aio has one poller for every loop of a process, and complains when another loop was faster.
    return record.exc_info is None or record.exc_info[0] is not BlockingIOError


logging.getLogger("asyncio").addFilter(_is_no_noise_of_grpc)

# Servers, Envoys and browsers that tests start end with them, also where pytest is killed.
os.environ.update(children.mark())

GUARD = Guard()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="very many inputs too, and every combination of parameters")


def pytest_configure(config: pytest.Config) -> None:
    # Coverage has each new thread set a trace function. To audit that, CPython runs this hook, so that another thread
    # can come in between, and neither may set one then (RuntimeError: "Cannot install a trace function while …").
    if not config.getoption("cov_source", default=[]) or config.getoption("no_cov", default=False):
        sys.addaudithook(GUARD)


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function) and not any(map(item.get_closest_marker, LANES)):
        item.add_marker(lane_of(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    GUARD.watch(item)
    try:
        return (yield)
    finally:
        GUARD.watch(None)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    yield
    # After all that others have to say.
    tell(terminalreporter)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is long, combinations of parameters whose every pair another one has, and one of two engines.

    What ``-k`` and ``-m`` leave out is gone by now.
    """
    if not config.getoption("whole"):
        left_out = {item for item in items if item.get_closest_marker("long")}
        left_out.update(beyond_one_engine(items))
        left_out.update(combinations_beyond_pairs(item for item in items if item not in left_out))
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]
    # The files that take longest first: otherwise one worker goes on for minutes after the others have finished.
    lanes = {item.path: 0 for item in items}
    for item in items:
        lanes[item.path] = max([lanes[item.path], *map(LANES.index, filter(item.get_closest_marker, LANES))])
    items.sort(key=lambda item: -lanes[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    # What collecting makes lives until the end: to look through it for garbage takes a third of the time.
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="session")
def rsa_key() -> SigningKey:
    """Return the one RSA key of the run: making one takes longer than most tests."""
    return SigningKey.generate("rsa-1")


@pytest.fixture(scope="session")
def ec_key() -> SigningKey:
    return SigningKey.generate("ec-1", "ES256")


@pytest.fixture(scope="session")
def other_key() -> SigningKey:
    """Return a key of the algorithm of ``ec_key`` that is published only if a test does so."""
    return SigningKey.generate("ec-2", "ES256")


@pytest.fixture
def issuer(ec_key: SigningKey) -> FakeIssuer:
    return FakeIssuer(ec_key)


@pytest.fixture
def transport(issuer: FakeIssuer) -> FakeTransport:
    return issuer.transport


@pytest.fixture
def claims(clock: ManualClock) -> Callable[..., dict[str, Any]]:
    """Return a function that makes the claims of a good token of this second, with changes."""
    return lambda **changes: m2m_claims(clock.now, **changes)


@pytest.fixture
def new_verifier(transport: FakeTransport, clock: ManualClock) -> Callable[..., Verifier]:
    """Return a function that builds a verifier of the issuer in memory."""

    def build(**options: Any) -> Verifier:
        defaults = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["ES256"]}
        if "jwks" not in options:
            defaults["transport"] = transport
        return Verifier(**{**defaults, "clock": clock.clock, **options})

    return build


@pytest.fixture
def verifier(new_verifier: Callable[..., Verifier]) -> Verifier:
    return new_verifier()


@pytest.fixture
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, without any ``AUTHZ_`` variable."""
    monkeypatch.chdir(tmp_path)
    for name in list(filter(is_ours, os.environ)):
        monkeypatch.delenv(name)


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Leave the logging of this process as it was."""
    root, httpx2 = logging.getLogger(), logging.getLogger("httpx2")
    handlers, levels = root.handlers[:], (root.level, httpx2.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    httpx2.setLevel(levels[1])
