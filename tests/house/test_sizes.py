"""The house stays one in which a newcomer finds the way: few entries, small folders, classes and functions."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENTRIES, FILES, METHODS, LINES = 26, 14, 16, 40

FOLDERS = sorted(
    {path.parent for package in ("authz", "interceptors") for path in (ROOT / package).rglob("*.py")}
    | {ROOT / "authz/server/admin/static"}
)
MODULES = sorted(
    path
    for package in ("authz", "interceptors")
    for path in (ROOT / package).rglob("*.py")
    if path.parent.name not in {"v1", "v3"}
)
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def code_lines(function: FUNCTION, source: list[str]) -> int:
    """Count the lines of a function's body that are neither blank nor comment nor docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    lines = source[body[0].lineno - 1 : function.end_lineno] if body else []
    return sum(1 for line in lines if line.strip() and not line.lstrip().startswith("#"))


def test_what_a_reader_sees_first_is_one_screen() -> None:
    # For type checkers alone, so that no reader looks at it: the marker of PEP 561.
    hidden = {"__pycache__", "py.typed"}
    seen = [path.name for path in (ROOT / "authz").iterdir() if path.name not in hidden]

    assert len(seen) <= ENTRIES, sorted(seen)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_folder_is_small(folder: Path) -> None:
    files = [path.name for path in folder.iterdir() if path.is_file() and path.suffix in {".py", ".js"}]

    assert len(files) <= FILES, sorted(files)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_classes_and_functions_are_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(text)))
    methods = {
        node.name: sum(isinstance(each, FUNCTION) for each in node.body)
        for node in nodes
        if isinstance(node, ast.ClassDef)
    }
    lines = {node.name: code_lines(node, text.splitlines()) for node in nodes if isinstance(node, FUNCTION)}

    assert {name: count for name, count in methods.items() if count > METHODS} == {}
    assert {name: count for name, count in lines.items() if count > LINES} == {}
