"""What a machine without POSIX can import: all that a program needs which calls, or serves calls in process."""

import subprocess
import sys

import pytest

# Taken away: what Python has on POSIX only. Loaded before is what needs it itself.
WITHOUT_POSIX = """
import asyncio, os, select, signal, socket, subprocess, sys, tempfile

for name in ("fcntl", "grp", "pwd", "resource", "termios", "uvloop", "pygrpc_native"):
    sys.modules[name] = None
for module, names in {
    os: "chown fork geteuid getuid killpg pread register_at_fork sched_getaffinity setsid",
    select: "PIPE_BUF poll",
    signal: "SIGHUP SIGKILL SIGUSR1 pthread_kill pthread_sigmask",
    socket: "AF_UNIX CMSG_LEN SCM_RIGHTS SO_REUSEPORT",
}.items():
    for name in names.split():
        delattr(module, name)
"""

PROGRAMS = {
    "all public names": "import authz\nfor name in authz.__all__: getattr(authz, name)",
    "interceptors": "import interceptors\nfor name in interceptors.__all__: getattr(interceptors, name)",
    "interceptors.aio": "import interceptors.aio as a\nfor name in a.__all__: getattr(a, name)",
    "observers": """
import authz.decisions.audit, authz.decisions.log, authz.decisions.prometheus
import authz.decisions.otel.log, authz.decisions.otel.metrics, authz.decisions.otel.spans
""",
    "client": """
from authz import ClientCredentials
from interceptors import bearer_interceptors
bearer_interceptors(ClientCredentials("https://acme.authkit.app", client_id="c", client_secret="s"))
""",
    "server": """
from authz import Authorizer, Verifier
from interceptors import AuthzInterceptor
AuthzInterceptor(Authorizer(Verifier(issuer="https://acme.authkit.app", audience="a")))
""",
    "commands": "from authz.cli import app; app.resolved_commands(); import authz.cli.verdict, authz.settings.settings",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_is_imported_without_what_only_posix_has(program: str) -> None:
    command = [sys.executable, "-c", WITHOUT_POSIX + PROGRAMS[program]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert (done.returncode, done.stderr) == (0, "")
