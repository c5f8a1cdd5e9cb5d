"""What a machine without POSIX can import: all that a program needs which calls, or serves calls in process."""

import subprocess
import sys
from pathlib import Path

import pytest

# Taken away: what Python has on POSIX only. Loaded before is what needs it itself.
WITHOUT_POSIX = """
import asyncio, os, select, signal, socket, subprocess, sys, tempfile

for name in ("fcntl", "grp", "pwd", "resource", "termios", "uvloop", "pygrpc_native"):
    sys.modules[name] = None
for module, names in {
    os: "chown fork geteuid getgid getuid killpg pread register_at_fork sched_getaffinity setsid",
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
    "commands": "from authz.cli.program.commands import app; app.resolved_commands(); "
    "import authz.cli.verdict, authz.settings.settings",
}

SERVED = ("--issuer", "https://acme.authkit.app", "--audience", "a", "--jwks", '{"keys": []}')
REFUSED = {
    ("serve", *SERVED): "serve",
    ("serve", *SERVED, "--workers", "2"): "serve",
    ("serve", *SERVED, "--check-config"): "serve",
    ("demo",): "demo",
}
IN_PROCESS = {
    "check_audit_address('unix:audit.sock')": "audit_listen: a Unix socket",
    "Permissions.parse('0660', ':ops')": "socket_mode",
    "OrdersFile('orders.jsonl', authorizer).__enter__()": "orders",
}
REPORTING = """
from authz import Authorizer, ConfigError, OrdersFile, Verifier
from authz.decisions.audit import check_audit_address
from authz.runtime.network.unix_sockets import Permissions
authorizer = Authorizer(Verifier(issuer="https://acme.authkit.app", audience="a"))
try:
    {}
except ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_is_imported_without_what_only_posix_has(program: str) -> None:
    command = [sys.executable, "-c", WITHOUT_POSIX + PROGRAMS[program]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_what_needs_posix_says_so(arguments: tuple[str, ...], tmp_path: Path) -> None:
    program = WITHOUT_POSIX + f"sys.argv = ['authz', *{arguments!r}]\nfrom authz.__main__ import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )

    says = f"authz: {REFUSED[arguments]}: works on Linux and macOS only; on Windows use WSL 2 or a container\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", says)


@pytest.mark.parametrize("program", IN_PROCESS)
def test_what_needs_posix_in_process_says_so(program: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_POSIX + REPORTING.format(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path)

    assert done.stdout == f"{IN_PROCESS[program]}: works on Linux and macOS only; on Windows use WSL 2 or a container\n"
