"""What is loaded, and when: no program loads what it does without, and no call waits until something is loaded."""

import contextlib
import json
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import authz
import interceptors
import interceptors.aio
from authz.demo.issuer.signing import SigningKey
from tests import programs
from tests.doubles import AUDIENCE, ISSUER, jwks, m2m_claims
from tests.envoy.check.messages import GRPC, bearer, in_headers
from tests.programs import PATIENCE, Program
from tests.server.forward_auth import http1
from tests.server.serving.serving import LOOPBACK, ask

# What takes long to load, and what only a few settings and commands need.
DRAWING = {"rich.markdown", "rich.table", "structlog"}
SETTINGS = {"pydantic", "cyclopts", "dotenv"}
SERVING = {"grpc", "grpc_health", "grpc_reflection", "prometheus_client", "starlette", "uvicorn", "uvloop"}
VERIFYING = {"cryptography.x509", "jwcrypto.jwk", "authz.issuer.verifier", "authz.judge.authorizer"}
ASKING = {"httpx2", "redis", "urllib.request", "workos"}
POLICY = {"pyrate_limiter", "yaml", "watchfiles", "authz.policy"}
OPTIONAL = {"opentelemetry", "authz.demo", "authz.server.admin.app", "authz.store", "authz.decisions.audit"}
OF_GRPC = {"grpc", "grpc_health", "grpc_reflection"}
"""What ``import grpc`` loads if it is there."""
ALL = DRAWING | SETTINGS | SERVING | VERIFYING | ASKING | POLICY | OPTIONAL

PROGRAMS = {
    "import authz": ALL | {"asyncio", "google.protobuf"},
    "from authz import ClientCredentials": ALL | {"google.protobuf", "email", "difflib"},
    "from authz import Verifier": ALL - VERIFYING | {"authz.judge.authorizer"},
    "from authz.wsgi import AuthzMiddleware": ALL - VERIFYING - {"authz.policy"} | {"authz.asgi", "flask", "django"},
    "import interceptors, interceptors.aio": ALL,
    "from interceptors import bearer_interceptors": ALL - OF_GRPC,
    "from interceptors.aio import bearer_interceptors": ALL - OF_GRPC,
}

CLIENTS = ["from interceptors import bearer_interceptors", "from interceptors.aio import bearer_interceptors"]

# Taken away: what this package requires, for servers alone.
OTHERS_MISSING = """
import sys
for name in ("cachetools", "cryptography", "google", "jwcrypto"):
    sys.modules[name] = None
"""
# Port 9 (discard) has no HTTP server; the request is made all the same, with all that it takes.
TOKEN_OF_NONE = """
from authz import TokenEndpointError
source = ClientCredentials("http://127.0.0.1:9", client_id="c", client_secret="s")
bearer_interceptors(source)
call_credentials(source)
try:
    source.token()
except TokenEndpointError as error:
    print(error.cause)
"""
# Of this process alone: what getrusage says is no less than what its parent had.
PEAK = "\nprint(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"

COMMANDS: dict[tuple[str, ...], set[str]] = {
    ("--version",): ALL | {"argparse"},
    ("protos",): ALL,
    ("token", "--client-id", "a"): ALL | {"authz.settings.config_file"},
    ("healthcheck", "--listen", "0"): ALL | {"http.client"},
    ("verify", "--issuer", "", "a.b.c"): ALL - SETTINGS - VERIFYING,
    ("policy", "check", "policy.json"): ALL - POLICY - {"cyclopts"} | {"yaml", "pyrate_limiter"},
    ("revoke", "--client", "a"): ALL - SETTINGS - {"authz.store"},
    ("serve", "--issuer", ""): ALL - SETTINGS - {"authz.judge.authorizer"} | VERIFYING,
}
"""What a command does without, even where it goes on to find that a setting is missing."""

SERVER = DRAWING | ASKING | OPTIONAL | {"prometheus_client", "pyrate_limiter", "starlette", "uvicorn", "yaml"}
"""What a server does without that has a static key set and a policy in JSON."""

LOADED = "; import sys; print('\\nloaded', *sys.modules)"
COMMAND = "import sys; from authz.cli import run; run(sys.argv[1:])" + LOADED

# From the first line of its log on, by which it serves, the program tells what it loads.
TELLING = """
import sys, os

def tell_imports():
    sys.addaudithook(lambda event, details: event == "import" and os.write(1, f"import {details[0]}\\n".encode()))
"""
SERVED = (
    TELLING
    + """
from authz.__main__ import main
from authz.server.operations import banner

announce = banner.announce

def announced(*arguments):
    # At once: another thread may write what is logged.
    os.write(1, f"loaded {' '.join(sys.modules)}\\n".encode())
    tell_imports()
    announce(*arguments)

banner.announce = announced
main()
"""
)
DOORS = {
    "sync": """
from concurrent.futures import ThreadPoolExecutor

def serve(handlers):
    server = grpc.server(ThreadPoolExecutor(4), interceptors=[AuthzInterceptor(authorizer)])
    server.add_generic_rpc_handlers([handlers])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    until_told(port)
    server.stop(None)

def echo(request, context):
    return request

def pause(request, context):
    yield request
    while context.is_active():
        time.sleep(0.01)

from interceptors import AuthzInterceptor
from authz import Authorizer, Verifier, Policy
""",
    "aio": """
import asyncio

def serve(handlers):
    asyncio.run(_serve(handlers))

async def _serve(handlers):
    server = grpc.aio.server(interceptors=[AuthzInterceptor(authorizer)])
    server.add_generic_rpc_handlers([handlers])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await asyncio.get_running_loop().run_in_executor(None, until_told, port)
    await server.stop(None)

async def echo(request, context):
    return request

async def pause(request, context):
    yield request
    await asyncio.sleep(3600)

from interceptors.aio import AuthzInterceptor
from authz import Authorizer, Verifier, Policy
""",
}
DOOR = """
import time, grpc

def until_told(port):
    tell_imports()
    print("port", port, flush=True)
    for line in sys.stdin:
        if line.strip() == "suspend":
            authorizer.suspend(org_id=ORG)
        elif line.strip() == "resume":
            authorizer.resume(org_id=ORG)
        elif line.strip() == "end":
            break
    print("ends", flush=True)

authorizer = Authorizer(
    Verifier(issuer=ISSUER, audience=AUDIENCE, jwks="jwks.json", algorithms=["ES256"]),
    policy=Policy.from_file("policy.json"),
)
serve(
    grpc.method_handlers_generic_handler(
        "a.B",
        {
            "Echo": grpc.unary_unary_rpc_method_handler(echo),
            "Pause": grpc.unary_stream_rpc_method_handler(pause),
            "Never": grpc.unary_unary_rpc_method_handler(echo),
        },
    )
)
"""


def loaded(program: str, *arguments: str, folder: Path) -> set[str]:
    done = programs.run(*arguments, folder=folder, command=(sys.executable, "-c", program))
    assert done.stdout, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, ec_key: SigningKey) -> Path:
    """Return a folder with a key set and a policy."""
    found: Path = tmp_path_factory.mktemp("loading")
    (found / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    rules = {
        "name": "p",
        "deny_rules": [{"name": "d", "request": {"paths": ["*/Never"]}}],
        "allow_rules": [{"name": "a"}],
    }
    (found / "policy.json").write_text(json.dumps(rules))
    return found


@pytest.fixture
def tokens(ec_key: SigningKey, other_key: SigningKey) -> list[str]:
    """Return good tokens, twice each, and bad ones of every kind."""
    now = time.time()
    good = [ec_key.sign(m2m_claims(now, jti=name)) for name in ("one", "two")]
    changes: list[dict[str, object]] = [{"exp": 1}, {"aud": "b"}, {"iss": "https://b.example"}, {"org_id": "no one"}]
    bad = [ec_key.sign(m2m_claims(now, **each)) for each in changes]
    return [*good, *good, *bad, other_key.sign(m2m_claims(now)), "a.b.c", "a", ec_key.sign({}, {"kid": "none"})]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_does_not_load_what_it_does_without(program: str, tmp_path: Path) -> None:
    assert loaded(program + LOADED, folder=tmp_path) & PROGRAMS[program] == set()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no file tells the peak of one process")
@pytest.mark.parametrize("program", ["from authz import ClientCredentials", *CLIENTS])
def test_a_client_takes_little_more_memory_than_grpc_alone(program: str, tmp_path: Path) -> None:
    peaks = [
        programs.run(folder=tmp_path, command=(sys.executable, "-c", each + PEAK)).stdout
        for each in ("import grpc", program)
    ]

    assert int(peaks[1]) <= 1.3 * int(peaks[0])


@pytest.mark.parametrize("program", CLIENTS)
def test_a_client_needs_no_package_but_grpc_and_one_for_http(program: str, tmp_path: Path) -> None:
    token = "from authz import ClientCredentials, call_credentials; " + program + TOKEN_OF_NONE
    done = programs.run(folder=tmp_path, command=(sys.executable, "-c", OTHERS_MISSING + token))

    assert (done.returncode, done.stdout, done.stderr) == (0, "refused\n", "")


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
def test_a_command_does_not_load_what_it_does_without(arguments: tuple[str, ...], folder: Path) -> None:
    assert loaded(COMMAND, *arguments, folder=folder) & COMMANDS[arguments] == set()


def test_a_supervisor_does_not_load_what_verifies_tokens(tmp_path: Path) -> None:
    program = "import authz.cli.serve, authz.server.supervisor_process" + LOADED

    assert loaded(program, folder=tmp_path) & (SERVING | VERIFYING | ASKING | DRAWING | OPTIONAL) == set()


@pytest.mark.parametrize("engine", ["grpcio", "native"])
def test_a_server_loads_nothing_that_it_does_without_and_nothing_for_a_call(
    engine: str, folder: Path, tokens: list[str]
) -> None:
    flags = ("--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256", "--log-format", "json")
    command = (sys.executable, "-c", SERVED)
    more = ("--jwks", "jwks.json", "--policy", "policy.json", "--decision-log", "all", "--listen", LOOPBACK)
    with Program("serve", *flags, *more, "--engine", engine, folder=folder, command=command) as server:
        [address] = server.await_event("listening")["addresses"]
        server.await_event("health", status="SERVING")
        codes = {ask(address, in_headers(GRPC, bearer(token))) for token in tokens}
        codes |= {ask(address, in_headers(bearer(tokens[0]), path="/a?b")), ask(address, in_headers(GRPC))}
        codes.add(ask(address, in_headers(GRPC, bearer(tokens[0]), path="/a.B/Never")))
        server.end()

    assert codes == {0, 7, 16}
    assert late(server.log) == []
    [names] = [line.split() for line in server.log if line.startswith("loaded ")]
    assert set(names) & SERVER == set()


def test_a_server_loads_nothing_for_what_other_proxies_ask(folder: Path, tokens: list[str]) -> None:
    flags = ("--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256", "--log-format", "json")
    more = ("--jwks", "jwks.json", "--policy", "policy.json", "--decision-log", "all", "--listen", LOOPBACK)
    asked = ("--forward-auth", LOOPBACK, "--forward-auth-headers", "none")
    command = (sys.executable, "-c", SERVED)
    with Program("serve", *flags, *more, *asked, folder=folder, command=command) as server:
        address = server.await_event("forward_auth_listening")["address"]
        server.await_event("health", status="SERVING")
        statuses = {http1.ask(address, "/a.B/C", f"authorization: Bearer {token}").status for token in tokens}
        targets = ("/a.B/Never", "/a/../b", "/a%20b")
        statuses |= {http1.ask(address, target, f"authorization: Bearer {tokens[0]}").status for target in targets}
        statuses |= {http1.ask(address, "/a", *headers).status for headers in ([], ["x-org-id: a"], ["x : a"])}
        server.end()

    assert statuses == {200, 401, 403}
    assert late(server.log) == []
    [names] = [line.split() for line in server.log if line.startswith("loaded ")]
    assert set(names) & SERVER == set()


@pytest.mark.parametrize("door", DOORS)
def test_a_door_loads_nothing_for_a_call_or_an_order(door: str, folder: Path, tokens: list[str]) -> None:
    constants = f"ISSUER, AUDIENCE, ORG = {ISSUER!r}, {AUDIENCE!r}, {m2m_claims()['org_id']!r}\n"
    program = constants + TELLING + "import time, grpc\n" + DOORS[door] + DOOR
    with door_of(program, folder) as (server, channel):
        codes = {code_of(channel, "/a.B/Echo", token) for token in tokens}
        codes |= {code_of(channel, f"/a.B/{method}", tokens[0]) for method in ("Never", "Unknown")}
        pausing = channel.unary_stream("/a.B/Pause")(b"", metadata=[bearer(tokens[0])], timeout=PATIENCE)
        next(pausing)
        tell(server, "suspend")
        with pytest.raises(grpc.RpcError):
            next(pausing)
        codes.add(code_of(channel, "/a.B/Echo", tokens[0]))
        tell(server, "resume")
        tell(server, "end")
        assert server.stdout is not None
        lines = server.stdout.read().splitlines()

    assert {"OK", "UNAUTHENTICATED", "PERMISSION_DENIED"} <= codes
    assert late(lines) == []


@pytest.mark.parametrize("package", [authz, interceptors, interceptors.aio], ids=lambda package: package.__name__)
def test_threads_may_use_names_for_the_first_time_together(package: types.ModuleType, tmp_path: Path) -> None:
    program = f"""
import sys, threading, {package.__name__} as package
sys.setswitchinterval(1e-6)
found, together = [], threading.Barrier(len(package.__all__))
def use(name):
    together.wait()
    found.append(getattr(package, name))
threads = [threading.Thread(target=use, args=[name]) for name in package.__all__]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert len(found) == len(package.__all__)
"""
    done = programs.run(folder=tmp_path, command=(sys.executable, "-c", program))

    assert (done.returncode, done.stderr) == (0, "")


@contextlib.contextmanager
def door_of(program: str, folder: Path) -> "Iterator[tuple[subprocess.Popen[str], Any]]":
    server = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
    )
    watch = threading.Timer(PATIENCE, server.kill)
    watch.start()
    try:
        assert server.stdout is not None
        port = next(line.split()[1] for line in server.stdout if line.startswith("port "))
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield server, channel
    finally:
        watch.cancel()
        server.kill()
        server.communicate()


def tell(server: "subprocess.Popen[str]", word: str) -> None:
    assert server.stdin is not None
    server.stdin.write(f"{word}\n")
    server.stdin.flush()


def code_of(channel: Any, method: str, token: str) -> str:
    try:
        channel.unary_unary(method)(b"", metadata=[bearer(token)], timeout=PATIENCE)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def late(lines: list[str]) -> list[str]:
    """Return what was loaded after the program began to serve, and before it was told to end."""
    ends = next(number for number, line in enumerate(lines) if line == "ends" or "NOT_SERVING" in line)
    return [line.strip() for line in lines[:ends] if line.startswith("import ")]
