"""What an installation may lack: packages that only an extra brings."""

import contextlib
from collections.abc import Callable, Iterator

from authz.errors import ConfigError


@contextlib.contextmanager
def extra(
    name: str, needs: str, *, package: str = "", error: Callable[[str], Exception] = ConfigError
) -> Iterator[None]:
    """Import a package of an extra in the block, and say what to install where it is missing.

    Args:
        name: the extra.
        needs: what needs it, in the words that the message begins with.
        package: the package, where a missing one that it needs itself is to be raised as it is.
        error: makes the error of the message.

    Raises:
        ConfigError: the package is not installed.

    """
    try:
        yield
    except ModuleNotFoundError as missing:
        if package and (missing.name or "").partition(".")[0] != package:
            raise
        raise error(f"{needs}: pip install 'grpc-org-authz[{name}]'") from None
