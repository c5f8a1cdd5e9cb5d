"""Imports point down only, in one line of rooms, and what is heavy is imported late."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# From the ground up: a room may import itself and those before it.
ROOMS = (
    *("lazy", "errors", "v1", "runtime", "call", "token", "organizations", "settings", "decisions", "issuer", "policy"),
    *(
        "judge",
        "store",
        "http",
        "asgi",
        "wsgi",
        "connect",
        "fastapi",
        "envoy",
        "server",
        "interceptors",
        "demo",
        "cli",
        "__main__",
        "testing",
    ),
)
MAY_IMPORT_GRPC = (
    *("authz.issuer.credentials", "authz.decisions.audit", "authz.envoy", "authz.server", "authz.demo", "authz.cli"),
)


def imports(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports, also inside functions: late is no excuse for up."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(dotted: str) -> str:
    package, _, rest = dotted.partition(".")
    return rest.partition(".")[0] if package == "authz" else package


FILES = {
    name_of(path): path
    for path in sorted([*ROOT.glob("authz/**/*.py"), *ROOT.glob("interceptors/**/*.py")])
    if path != ROOT / "authz/__init__.py" and path.parent.name not in {"v1", "v3"}
}


def modules_imported(name: str) -> set[str]:
    """Return which modules of ours a module imports, where it imports a name, those of the name."""
    found = set()
    for dotted in imports(FILES[name]):
        module = dotted
        while module and module not in FILES:
            module = module.rpartition(".")[0]
        found.add(module)
    return found - {"", name}


@pytest.mark.parametrize("name", FILES)
def test_a_room_imports_only_those_before_it(name):
    ours = {room_of(each) for each in imports(FILES[name]) if each.partition(".")[0] in {"authz", "interceptors"}}
    room = room_of(name)
    public = {each for each in ours if each not in ROOMS}  # names of the package itself: for those above the judge
    assert not public or ROOMS.index(room) > ROOMS.index("judge")
    assert {each for each in ours - public if ROOMS.index(each) > ROOMS.index(room)} == set()


def test_no_modules_import_one_another_in_a_circle():
    faces = {name for name, path in FILES.items() if path.name == "__init__.py"}
    graph = {name: modules_imported(name) - faces for name in FILES}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("name", FILES)
def test_grpc_is_for_the_doors(name):
    packages = {each.partition(".")[0] for each in imports(FILES[name])}
    assert "grpc" not in packages or name.startswith(("interceptors", *MAY_IMPORT_GRPC))


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("interceptors")])
def test_interceptors_import_one_another_by_no_absolute_name(name):
    """For they have two names, the second of which is for programs with an ``interceptors`` of their own."""
    tree = ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8")))
    absolute = [node for node in tree if isinstance(node, ast.ImportFrom) and not node.level]
    assert [node.module for node in absolute if str(node.module).partition(".")[0] == "interceptors"] == []


def test_importing_the_judge_loads_nothing_heavy():
    program = (
        "import sys, authz; print({'cyclopts', 'grpc', 'httpx2', 'pydantic', 'redis', 'workos'} & sys.modules.keys())"
    )
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    assert result.stdout == "set()\n"
