"""The supervisor goes on, whatever becomes of a worker; with workers that are small programs."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from authz.errors import ConfigError
from authz.server.workers.shared_addresses import SharedAddresses
from authz.server.workers.silence import Silence
from authz.server.workers.slot import Slot
from authz.server.workers.supervisor import Supervisor
from tests.server.serving.serving import LOOPBACK

PATIENCE = 120.0
# One that has listened before, as a file in its folder tells, goes wrong.
WORKER = """
import json, os, pathlib, socket, sys, time
told = json.loads(os.environ["_AUTHZ_WORKER"])
link, before = socket.socket(fileno=told["link"]), pathlib.Path(sys.argv[1], str(told["number"]))
def say(**what): link.sendall(json.dumps(what).encode() + b"\\n")
if {goes_wrong}:
    {wrong}
    sys.exit(2)
link.recv(1)
before.write_text(str(os.getpid()))
say(silent=0, able=True, listening=True, unready="")
link.settimeout(0.2)
while True:
    try:
        if not link.recv(64): break
    except TimeoutError:
        say(silent=0)
"""
LONG_ERROR = "say(error='x' * 200_000)"
ERROR = "say(error='policy: cannot be read')"
AGAIN = "before.exists()"


def supervise(folder: Path, story: Callable[[Supervisor], Awaitable[Any]], **worker: str) -> Any:
    """Run a supervisor of two such workers, and a story about it, at the end of which it is told to end."""
    command = (sys.executable, "-S", "-c", WORKER.format(**worker), str(folder))

    async def run() -> Any:
        with SharedAddresses([LOOPBACK]) as addresses:
            supervisor = Supervisor(2, addresses, drain=0.0, patience=5.0, started=lambda: None, command=command)
            running = asyncio.create_task(supervisor.run())
            telling = asyncio.create_task(tell(supervisor))
            await asyncio.wait((running, telling), return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                signal.raise_signal(signal.SIGTERM)
            await asyncio.wait_for(running, PATIENCE)
            return await telling

    async def tell(supervisor: Supervisor) -> Any:
        await until(lambda: supervisor.running == 2)
        return await story(supervisor)

    return asyncio.run(run())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - another process sends no event
            await asyncio.sleep(0.01)


def pid(folder: Path, number: int) -> int:
    return int((folder / str(number)).read_text())


@pytest.mark.parametrize("wrong", [LONG_ERROR, ERROR, "link.send(b'{' * 100_000)", "link.close()", "1 / 0"])
def test_worker_that_cannot_be_started_again_ends_no_other(tmp_path: Path, wrong: str) -> None:
    async def story(supervisor: Supervisor) -> tuple[int, bool]:
        other = pid(tmp_path, 1)
        os.kill(pid(tmp_path, 0), signal.SIGKILL)
        await until(lambda: supervisor.restarts >= 3)
        return supervisor.running, pid(tmp_path, 1) == other

    assert supervise(tmp_path, story, goes_wrong=AGAIN, wrong=wrong) == (1, True)


def test_error_of_a_worker_that_is_started_again_before_it_listened_ends_no_other(tmp_path: Path) -> None:
    # Worker 1 dies at first without a word, then says what is wrong, while worker 0 serves.
    wrong = f"before.touch() if not before.exists() else {ERROR}"

    async def run() -> tuple[int, int]:
        command = (sys.executable, "-S", "-c", WORKER.format(goes_wrong='told["number"]', wrong=wrong), str(tmp_path))
        with SharedAddresses([LOOPBACK]) as addresses:
            supervisor = Supervisor(2, addresses, drain=0.0, patience=5.0, started=lambda: None, command=command)
            running = asyncio.create_task(supervisor.run())
            await until(lambda: running.done() or supervisor.restarts >= 3)
            told = supervisor.running, supervisor.restarts
            signal.raise_signal(signal.SIGTERM)
            await asyncio.wait_for(running, PATIENCE)
        return told

    assert asyncio.run(run()) == (1, 3)


def test_error_of_the_very_first_worker_ends_all_and_is_cut_to_a_line(tmp_path: Path) -> None:
    async def never(_: Supervisor) -> None:
        raise AssertionError

    # It reads what it is told, as a worker of ours does: closing a socket unread loses what was written last.
    with pytest.raises(ConfigError) as raised:
        supervise(tmp_path, never, goes_wrong="True", wrong="say(error='jwks: \\n' + 'y' * 5000); link.recv(1)")

    assert str(raised.value) == "jwks:  " + "y" * 993


def test_reason_that_a_worker_gave_is_told_before_that_another_starts(tmp_path: Path) -> None:
    unready = "['starting', 'key_set_unavailable: refused'][told['number']]"
    wrong = f"link.recv(1); say(able=True, listening=True, unready={unready}); [*iter(lambda: link.recv(64), b'')]"

    async def story(supervisor: Supervisor) -> str:
        return supervisor.unready

    assert supervise(tmp_path, story, goes_wrong="True", wrong=wrong) == "key_set_unavailable: refused"


def test_what_is_unforeseen_at_one_slot_ends_no_other(caplog: pytest.LogCaptureFixture) -> None:
    attempts = 0

    async def start(_number: int) -> Any:
        nonlocal attempts
        attempts += 1
        raise RuntimeError("a text that must not be seen")

    async def keep() -> None:
        slot = Slot(0, start, patience=1, ended=lambda _: None)
        keeping = asyncio.create_task(slot.keep())
        await until(lambda: attempts >= 2)
        slot.end(signal.SIGTERM)
        await keeping

    asyncio.run(keep())

    assert "unforeseen_error" in caplog.text
    assert "a text that" not in caplog.text


# ---- Silence ----


def test_time_in_which_the_supervisor_does_not_run_is_no_silence() -> None:
    async def story() -> bool:
        silence = Silence(timeout=1.0)
        silence.is_starting = False
        watching = asyncio.create_task(silence.too_long())
        await asyncio.sleep(0.15)
        # As after SIGSTOP, or where the machine was asleep: the clock went on, and nothing ran.
        time.sleep(5.0)  # noqa: ASYNC251 - that is the point
        await asyncio.sleep(0)
        was_over = watching.done()
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        return was_over

    assert not asyncio.run(story())


def test_silence_is_counted_from_the_last_sign_of_life() -> None:
    async def story() -> int:
        silence, signs = Silence(timeout=0.5), 0
        silence.is_starting = False
        watching = asyncio.create_task(silence.too_long())
        for _ in range(30):
            silence.broken(0.0)
            await asyncio.sleep(0.05)
            signs += not watching.done()
        await asyncio.wait_for(watching, PATIENCE)
        return signs

    assert asyncio.run(story()) == 30
