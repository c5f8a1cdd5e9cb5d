"""``authz`` as the first process of a container: it ignores what it does not handle, so it handles the end early."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.missing import leave_out
from tests.programs import AUTHZ, Program

# Root may; others only where the system lets them have a user namespace.
UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", *(() if os.geteuid() == 0 else ("--map-root-user",)))
# Stands for the imports, which take a second where the machine is busy.
SLOW_IMPORT = "import signal\nprint('importing', flush=True)\nsignal.pause()\n"


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    try:
        subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=True, timeout=120)
    except (OSError, subprocess.CalledProcessError):
        leave_out("authz as the first process, because unshare cannot make a namespace", "run it on Linux, as root")


def first_process(program: Program) -> int:
    """Return the id, out here, of the process that is the first one in there."""
    return int(Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text())


@pytest.mark.parametrize("is_first", [True, False])
def test_it_ends_when_told_to_while_it_only_starts(tmp_path: Path, *, is_first: bool) -> None:
    (tmp_path / "cyclopts.py").write_text(SLOW_IMPORT)
    root = str(Path(__file__).parents[2])
    command = (sys.executable, "-c", "from authz.__main__ import main; main()")
    path = os.pathsep.join([str(tmp_path), root])
    with Program(folder=tmp_path, command=(*UNSHARE, *command) if is_first else command, PYTHONPATH=path) as program:
        program.await_line(lambda line: line == "importing\n")
        os.kill(first_process(program) if is_first else program.pid, signal.SIGTERM)

        assert program.wait() == (128 + signal.SIGTERM if is_first else -signal.SIGTERM)


def test_it_ends_when_told_to_while_it_serves(tmp_path: Path) -> None:
    serve = ("serve", "--issuer", "http://127.0.0.1:1", "--audience", "x", "--listen", "127.0.0.1:0")
    with Program(*serve, folder=tmp_path, command=(*UNSHARE, *AUTHZ)) as program:
        program.await_event("listening")
        os.kill(first_process(program), signal.SIGTERM)

        assert program.wait() == 0
