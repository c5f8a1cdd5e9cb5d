"""Imports point down only, and what is heavy is imported late."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Every floor may import those before it. A folder is one room: "envoy" is all of authz/envoy, whose rooms follow.
FLOORS = (
    (
        "causes",
        "clock",
        "coalescing",
        "encoding",
        "errors",
        "fork",
        "lines",
        "peer",
        "printable",
        "reasons",
        "signature",
    ),
    ("telemetry",),
    ("threads",),
    (
        "alarms",
        "background",
        "backoff",
        "call",
        "connecting",
        "jwk",
        "logs",
        "profiles",
        "secret",
        "shares",
        "unix_sockets",
        "variables",
        "watch",
    ),
    ("transport", "urls"),
    (
        "client_authentication",
        "endpoint",
        "environment",
        "flow",
        "metadata",
        "quota",
        "refusal",
        "streams",
        "token_response",
    ),
    (
        "claims",
        "decision",
        "descriptors",
        "discovery",
        "jws",
        "keys",
        "revocation",
        "suspension",
        "token_status",
    ),
    (
        "audit",
        "bearer",
        "decision_log",
        "introspection",
        "isolation",
        "mesh",
        "ownership",
        "remote_keys",
        "requirements",
        "token_source",
    ),
    ("access", "audit_service", "credentials", "otel", "verifier"),
    ("policy",),
    ("directory", "issuer_settings", "nobody", "verifiers"),
    ("assurances", "explanation", "issuers", "organizations", "workos_api"),
    ("shadow",),
    ("authorizer", "workos_directory"),
    ("hearing", "reload", "settings"),
    ("admin",),
    ("envoy", "interceptors"),
    ("demo",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ENVOY_FLOORS = (
    ("check", "listeners"),
    ("client", "config", "serving"),
    ("operations", "workers"),
    ("rules",),
    ("process", "processes"),
)
ENVOY_FLOOR = {room: number for number, rooms in enumerate(ENVOY_FLOORS) for room in rooms}
# The public names of the package itself belong to whoever is above all of them.
PUBLIC = FLOOR["authorizer"]

# The only way up: Verifier.from_env() loads the settings when it is called, as Verifiers.from_env() does.
UP = {("verifier", "settings"), ("verifiers", "settings")}

MAY_IMPORT_INTERCEPTORS = {"demo", "interceptors"}
MAY_IMPORT_GRPC = {"audit_service", "cli", "credentials", "demo", "envoy", "interceptors"}

GENERATED = ("v1", "v3")


def room_of(dotted: str) -> str:
    """Return "keys" for authz.keys, "envoy" for authz.envoy.check.messages."""
    package, _, rest = dotted.partition(".")
    return rest.partition(".")[0] if package == "authz" else package


def envoy_room_of(dotted: str) -> str:
    """Return "check" for authz.envoy.check.messages, and nothing for what is not in a room of authz.envoy."""
    _, _, rest = dotted.partition("authz.envoy.")
    room = rest.partition(".")[0]
    return "" if room == "__init__" else room


def imports(path: Path) -> Iterator[str]:
    """Yield every import, also those inside functions: late is no excuse for up."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted([*ROOT.glob("authz/**/*.py"), *ROOT.glob("interceptors/**/*.py")]):
        if path != ROOT / "authz/__init__.py" and path.parent.name not in GENERATED:
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path


MODULES = [pytest.param(room_of(name), set(imports(path)), id=name) for name, path in modules()]
ENVOY_MODULES = [pytest.param(name, path, id=name) for name, path in modules() if envoy_room_of(name)]


@pytest.mark.parametrize(("room", "imported"), MODULES)
def test_imports_point_down(room, imported):
    assert room in FLOOR, "a new module: give it a floor"
    ours = {room_of(name) for name in imported if name.partition(".")[0] in {"authz", "interceptors"}}
    others = ours - {room, "v1"}  # the messages import nothing of ours
    above = {(room, other) for other in others if FLOOR.get(other, PUBLIC) >= FLOOR[room]}
    assert above <= UP


@pytest.mark.parametrize(("name", "path"), ENVOY_MODULES)
def test_imports_point_down_among_the_rooms_of_envoy(name, path):
    room = envoy_room_of(name)
    others = {envoy_room_of(each) for each in imports(path)} - {room, "", "v3"}
    assert {other for other in others if ENVOY_FLOOR[other] >= ENVOY_FLOOR[room]} == set()


@pytest.mark.parametrize(("room", "imported"), MODULES)
def test_the_judge_knows_neither_door(room, imported):
    packages = {name.partition(".")[0] for name in imported}
    assert "interceptors" not in packages or room in MAY_IMPORT_INTERCEPTORS
    assert "grpc" not in packages or room in MAY_IMPORT_GRPC


def test_importing_the_judge_loads_nothing_heavy():
    program = "import sys, authz; print({'cyclopts', 'grpc', 'httpx2', 'pydantic', 'workos'} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    assert result.stdout == "set()\n"
