"""Names of a package that are imported when they are first used (PEP 562).

All that this module itself imports is loaded by every program, so it imports nothing that takes time.
"""

import sys
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, names: Mapping[str, Collection[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and the ``__dir__`` of a package whose names are imported when they are first used.

    The package hides them from type checkers, which would take any name for one of its own, and imports the
    names for them where ``TYPE_CHECKING`` is true.

    Args:
        package: its ``__name__``.
        names: those of each of its modules, which begin with a dot.

    """
    modules = {name: module for module, those in names.items() for name in those}

    def value_of(name: str) -> Any:
        if name not in modules:
            # With both, Python says which name may be meant.
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules.get(package)
            )
        try:
            value = getattr(import_module(modules[name], package), name)
        except ImportError as error:
            if (error.name or "").startswith("authz."):
                from grpc_org_authz.shadowing import explained  # noqa: PLC0415 - only for this error

                raise explained("authz", error.path) from error
            raise
        # So that Python finds it without this function from now on.
        setattr(sys.modules[package], name, value)
        return value

    def names_of() -> list[str]:
        return sorted(modules)

    return value_of, names_of
