"""The command ``authz``, also as ``python -m authz``."""

import os
import signal
import sys
from typing import NoReturn

from authz.runtime import background


def main() -> NoReturn:
    """Run the command; say what to install where its extra is missing."""
    if os.getpid() == 1:
        # First, before all that takes long to import: the first process of a container ignores what it does not handle.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    background.collect_seldom()
    try:
        from authz import cli  # noqa: PLC0415 - what may be missing
    except ModuleNotFoundError as error:
        _say_what_to_install(error)
    try:
        cli.main()
    except ImportError as error:
        # Cyclopts imports a command when it is used, and says of which error this one is the result.
        if not isinstance(error.__cause__, ModuleNotFoundError):
            raise
        _say_what_to_install(error.__cause__)


def _say_what_to_install(error: ModuleNotFoundError) -> NoReturn:
    print(  # noqa: T201 - a command
        f"authz: the command needs the extra 'server' ({error.name} is missing): pip install 'grpc-org-authz[server]'",
        file=sys.stderr,
    )
    sys.exit(2)


if __name__ == "__main__":
    main()
