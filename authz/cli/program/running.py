"""Runs a command: finds its module, and turns what it returns or raises into an exit code.

Nothing here needs an extra of the package, so that some commands do not either.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from authz.cli.app import ALLOWED, DENIED, MISUSED, UNDECIDED, ReaderGoneError, complain, flush, version, write
from authz.cli.program.table import EXTRAS, PLAIN, names
from authz.errors import ConfigError, UnauthenticatedError, UnavailableError
from authz.server.workers import flags

_STATUSES: dict[type[Exception], int] = {
    ConfigError: MISUSED,
    UnauthenticatedError: DENIED,
    UnavailableError: UNDECIDED,
}
_INTERRUPTED, _UNREAD = 128 + 2, 128 + 13


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and end the process with its exit code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code; an error is one line on standard error."""
    try:
        status = _status_of(arguments)
        # Here, because a failure could not be handled any more when the process ends.
        flush()
    except (BrokenPipeError, ReaderGoneError):
        _end_writing()
        return _UNREAD
    return status


def _status_of(arguments: Sequence[str]) -> int:
    try:
        status = _run_command(arguments)
    except tuple(_STATUSES) as error:
        return complain(error, next(status for kind, status in _STATUSES.items() if isinstance(error, kind)))
    except ImportError as error:
        # Cyclopts imports a command when it is used, and says of which error this one is the result.
        missing = error.__cause__ if isinstance(error.__cause__, ModuleNotFoundError) else error
        if not isinstance(missing, ModuleNotFoundError):
            raise
        return complain(_what_to_install(arguments, missing), MISUSED)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return status if isinstance(status, int) else ALLOWED


def _run_command(arguments: Sequence[str]) -> object:
    if list(arguments) == ["--version"]:
        write(version())
        return ALLOWED
    if arguments and arguments[0] in PLAIN:
        return import_module(f"authz.cli.plain.{arguments[0]}").run(arguments[1:])
    if arguments and arguments[0] == "serve" and flags.are_passed_on():
        from authz.cli import serving  # noqa: PLC0415 - the extra's

        return serving.run_worker()
    from authz.cli.program import commands  # noqa: PLC0415 - the extra's

    return commands.run(arguments)


def _what_to_install(arguments: Sequence[str], error: ModuleNotFoundError) -> str:
    name = next(iter(arguments), "")
    if name in names():
        extra = EXTRAS.get(name, "server")
        needs = f"{name} needs the extra{'s' if ',' in extra else ''} {extra!r}"
    else:
        # Not repeated, because it may be anything.
        extra, needs = "server", f"all commands but {', '.join(PLAIN)} need the extra 'server'"
    return f"{needs} ({error.name} is missing): pip install 'grpc-org-authz[{extra}]'"


def _end_writing() -> None:
    """Have what is still to be written go nowhere: it has no reader either, and the interpreter would say so."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
