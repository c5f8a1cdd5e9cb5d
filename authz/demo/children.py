"""Programs that end with the process that started them, however it ends: also by ``SIGKILL``."""

import atexit
import functools
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping

_VARIABLE = "_AUTHZ_ENDS_WITH"

# A process of its own, which no signal to the parent reaches. Its standard input ends when the parent has.
_WATCHER = """
import os, signal, sys
def marked():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as environment:
                if sys.argv[1].encode() in environment.read().split(b"\\0"): yield int(pid)
        except OSError: pass
os.read(0, 1)
while pids := list(marked()):
    for pid in pids:
        try: os.kill(pid, signal.SIGKILL)
        except ProcessLookupError: pass
"""


@functools.cache
def mark() -> Mapping[str, str]:
    """Return the variable whose bearers, and all that they start, are killed when this process has ended.

    On Linux only: elsewhere nothing watches.
    """
    variables = {_VARIABLE: secrets.token_hex(16)}
    if sys.platform == "linux":
        marked = f"{_VARIABLE}={variables[_VARIABLE]}"
        bare = {name: value for name, value in os.environ.items() if name != _VARIABLE}
        watcher = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", "-S", "-c", _WATCHER, marked],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=bare,
            start_new_session=True,
        )
        # A child of fork must not keep the pipe open.
        assert watcher.stdin is not None  # noqa: S101 - asked for above
        os.register_at_fork(after_in_child=watcher.stdin.close)
        atexit.register(watcher.communicate)
    return variables
