"""Workers come and go under load, and Envoy's callers do not notice."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from authz.server.serving.server import EngineName
from tests.chaos.load import Load
from tests.chaos.site import WORKERS, site

Report = Callable[[Load], None]


UNIX, TCP = "unix:{}/authz.sock", "127.0.0.1:0"


@pytest.mark.parametrize("listen", [UNIX, TCP], ids=["unix", "tcp"])
@pytest.mark.parametrize("engine", get_args(EngineName))
def test_rolling_restart_loses_no_request(
    tmp_path: Path, keys: tuple[str, ...], token: str, engine: EngineName, *, listen: str, rounds: int, report: Report
) -> None:
    with site(tmp_path, keys, engine, listen.format(tmp_path), drain=0.5) as workers:
        with Load(workers.url, lambda: token) as load:
            for _ in range(rounds):
                load.more(200)
                workers.replace_workers()
            load.more(200)
        report(load)

    assert load.failures == 0


@pytest.mark.parametrize(("engine", "listen"), [("grpcio", TCP), ("native", UNIX)], ids=["grpcio-tcp", "native-unix"])
def test_worker_that_is_killed_takes_hardly_a_request_with_it(
    tmp_path: Path, keys: tuple[str, ...], token: str, engine: EngineName, *, listen: str, rounds: int, report: Report
) -> None:
    with site(tmp_path, keys, engine, listen.format(tmp_path)) as workers:
        with Load(workers.url, lambda: token) as load:
            for number in range(rounds):
                load.more(200)
                victim = number % WORKERS
                workers.kill(victim)
                # The other goes on.
                load.more(50)
                workers.await_recovery(victim)
            load.more(200)
        restarts = workers.figure("authz_worker_restarts_total")
        report(load)

    assert restarts == rounds
    # None is let through and none is called bad; a few may have been under way when their worker died.
    assert set(load.counts) <= {"200", "503"}
    assert load.failures <= rounds * load.clients
