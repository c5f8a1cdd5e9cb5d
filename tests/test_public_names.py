import types

import pytest

import authz
import interceptors
import interceptors.aio

PACKAGES = pytest.mark.parametrize("package", [authz, interceptors, interceptors.aio], ids=lambda it: it.__name__)


@PACKAGES
def test_the_list_of_public_names_is_sorted(package):
    assert package.__all__ == sorted(package.__all__)


@PACKAGES
def test_what_is_public_is_on_the_list(package):
    public = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }

    assert public == set(package.__all__)


@PACKAGES
def test_what_is_public_has_a_docstring(package):
    undocumented = [name for name in package.__all__ if not getattr(package, name).__doc__]

    assert undocumented == []
