import ast
import pickle
import subprocess
import sys
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


def test_a_misspelt_name_is_answered_with_the_right_one(tmp_path):
    command = [sys.executable, "-c", "import authz; authz.Verifyer"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert done.stderr.endswith("Did you mean: 'Verifier'?\n")


def test_a_name_is_the_same_object_as_in_its_module_and_pickled_as_such():
    from authz.call.principal import Principal  # noqa: PLC0415 - the other way to it

    assert authz.Principal is Principal
    assert pickle.loads(pickle.dumps(authz.Principal)) is Principal  # noqa: S301 - its own


@PACKAGES
def test_a_star_imports_every_public_name(package, tmp_path):
    program = (
        f"from {package.__name__} import *\nfrom {package.__name__} import __all__\nprint(set(__all__) - set(dir()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)

    assert (done.stdout, done.stderr) == ("set()\n", "")


@PACKAGES
def test_what_type_checkers_see_is_what_is_imported(package):
    body = ast.parse(Path(package.__file__).read_text(encoding="utf-8")).body
    [seen] = [node for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "typing.TYPE_CHECKING"]
    # What they do not see: that any other name might be there.
    [hidden] = [
        node for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "not typing.TYPE_CHECKING"
    ]
    [names] = [ast.literal_eval(node) for node in ast.walk(hidden) if isinstance(node, ast.Dict)]

    declared = {
        (alias.name, "." + node.module.removeprefix(f"{package.__name__}."))
        for node in seen.body
        for alias in node.names
    }
    assert declared == {(name, module) for module, names in names.items() for name in names}
    assert {name for name, _ in declared} == set(package.__all__)
    assert "__getattr__" not in ast.unparse([node for node in body if node is not hidden])


@PACKAGES
def test_what_is_public_has_a_docstring(package):
    undocumented = [name for name in package.__all__ if not getattr(package, name).__doc__]

    assert undocumented == []
