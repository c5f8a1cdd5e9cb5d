"""The command ``authz``, also as ``python -m authz``."""

import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command; say what to install where its extra is missing."""
    if os.getpid() == 1:
        # First, before all that takes long to import: the first process of a container ignores what it does not handle.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        from authz import cli  # noqa: PLC0415 - what may be missing
    except ModuleNotFoundError as error:
        print(  # noqa: T201 - a command
            f"authz: the command needs the extra 'server' ({error.name} is missing):"
            " pip install 'grpc-org-authz[server]'",
            file=sys.stderr,
        )
        sys.exit(2)
    cli.main()


if __name__ == "__main__":
    main()
