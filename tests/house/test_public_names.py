import ast
import types
from pathlib import Path

import pytest

import authz
import authz.connect
import authz.testing
import interceptors
import interceptors.aio

PACKAGES = pytest.mark.parametrize(
    "package", [authz, authz.connect, authz.testing, interceptors, interceptors.aio], ids=lambda it: it.__name__
)


@PACKAGES
def test_the_list_of_public_names_is_sorted(package):
    assert package.__all__ == sorted(package.__all__)


@PACKAGES
def test_what_is_public_is_on_the_list(package):
    # Each is there once it has been asked for.
    assert [name for name in dir(package) if not name.startswith("_") and not hasattr(package, name)] == []
    public = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }

    assert public == set(package.__all__)


def test_a_name_that_is_not_public_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'Verifyer'"):
        authz.Verifyer  # noqa: B018 - what a typing error does


@PACKAGES
def test_what_type_checkers_see_is_what_is_imported(package):
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    [declared] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        (alias.name, node.module) for node in declared.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }

    assert seen == set(package._MODULES.items())  # noqa: SLF001 - the other side of the comparison
    assert {name for name, _ in seen} == set(package.__all__)


@PACKAGES
def test_what_is_public_has_a_docstring(package):
    undocumented = [name for name in package.__all__ if not getattr(package, name).__doc__]

    assert undocumented == []
