"""Which file is imported under a name of ours, and what to do where it is not ours."""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parent.parent


def names_of(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and the ``__dir__`` of a package that has the names of ``package``.

    They are those of ``interceptors`` where that is ours; else those of our files under a name of their own.

    Args:
        package: ``interceptors`` or ``interceptors.aio``.

    """
    if not is_ours("interceptors"):
        _load_interceptors()
        package = f"grpc_org_authz._{package}"
    ours = import_module(package)
    return lambda name: getattr(ours, name), lambda: dir(ours)


def is_ours(name: str) -> bool:
    """Say whether the package that is or would be imported as ``name`` is ours."""
    file = _file_of(name)
    return file is not None and Path(file).resolve() == _FOLDER / name / "__init__.py"


def explained(name: str, overwritten: str | None = None) -> ImportError:
    """Return an error that says which file stands in place of ours, and the remedy.

    Args:
        name: ``authz`` or ``interceptors``.
        overwritten: the file of ours that another has overwritten, if it is known; by default that of the package.

    """
    file = _file_of(name) or "a folder without __init__.py"
    if is_ours(name):
        file = overwritten or file
    else:
        return ImportError(
            f"{file} is imported as {name!r} in place of that of grpc-org-authz; rename it, "
            "or begin the program in another folder",
            name=name,
            path=file,
        )
    from importlib.metadata import packages_distributions  # noqa: PLC0415 - slow, and only for this error

    others = sorted({*packages_distributions().get(name, ())} - {"grpc-org-authz"})
    whose = f"of the distribution {others[0]!r}" if others else "of another distribution"
    remove = others[0] if others else name
    return ImportError(
        f"{file} is {whose}, which has overwritten files of grpc-org-authz; they cannot be installed together: "
        f"pip uninstall {remove}, and pip install --force-reinstall --no-deps grpc-org-authz",
        name=name,
        path=file,
    )


def _load_interceptors() -> None:
    name, folder = "grpc_org_authz._interceptors", _FOLDER / "interceptors"
    if name not in sys.modules:
        spec = spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
        if spec is None or spec.loader is None:
            raise ImportError(f"{folder} cannot be imported; install grpc-org-authz again", name=name)
        sys.modules[name] = module = module_from_spec(spec)
        spec.loader.exec_module(module)


def _file_of(name: str) -> str | None:
    module = sys.modules.get(name)
    try:
        spec = find_spec(name) if module is None else module.__spec__
    except ValueError:
        spec = None
    return getattr(module, "__file__", None) if spec is None else spec.origin
