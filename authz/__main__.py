"""The command ``authz``, also as ``python -m authz``."""

import os
import signal
import sys
from typing import NoReturn

from authz.runtime import background


def main() -> NoReturn:
    """Run the command."""
    if os.getpid() == 1:
        # First, before all that takes long to import: the first process of a container ignores what it does not handle.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    background.collect_seldom()
    # Pydantic would look through all that is installed for plugins that want to see our settings.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from authz import cli  # noqa: PLC0415 - as above

    cli.main()


if __name__ == "__main__":
    main()
