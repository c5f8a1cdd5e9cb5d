"""The command itself: its exit codes, and how it reports errors."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import cyclopts
from cyclopts import Parameter

from authz.errors import ConfigError, UnauthenticatedError, UnavailableError
from authz.runtime.configuration import read_secret
from authz.runtime.text.printable import printable

ALLOWED, DENIED, MISUSED, UNDECIDED = 0, 1, 2, 3

_STATUSES: dict[type[Exception], int] = {
    ConfigError: MISUSED,
    UnauthenticatedError: DENIED,
    UnavailableError: UNDECIDED,
}

# Characters of one line: enough for the longest header or claim.
_MAX_LINE = 16_384


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 - late: only --version needs it

    return version("grpc-org-authz")


app = cyclopts.App(
    name="authz",
    help="Verified organizations for gRPC: WorkOS Connect M2M tokens, in process and behind Envoy.",
    version=_version,
    version_flags="--version",
    version_format="plaintext",
    help_on_error=False,
    default_parameter=Parameter(negative_iterable=()),
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and end the process with its exit code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code; an error is one line on standard error."""
    try:
        _import_commands(arguments)
        status = app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
        # Here, because a failure could not be handled any more when the process ends.
        sys.stdout.flush()
    except cyclopts.CycloptsError as error:
        return complain(_usage(error), MISUSED)
    except tuple(_STATUSES) as error:
        return complain(error, next(status for kind, status in _STATUSES.items() if isinstance(error, kind)))
    except KeyboardInterrupt:
        return 128 + 2
    except BrokenPipeError:
        # The reader has gone, as `head` does once it has enough; what is still to be written has no reader either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    return status if isinstance(status, int) else ALLOWED


def _import_commands(arguments: Sequence[str]) -> None:
    """Import the command that ``arguments`` name; without one all, so that their help can be listed."""
    names, apps, _ = app.parse_commands(list(arguments))
    if "--version" not in names:
        group_or_command = [each for name, each in zip(("", *names), apps, strict=True) if not name.startswith("-")][-1]
        group_or_command.resolved_commands()


def complain(error: object, status: int) -> int:
    """Print an error in one line on standard error, and return ``status``."""
    # The error may quote text from a file or an argument.
    print(f"authz: {printable(' '.join(str(error).split()), _MAX_LINE)}", file=sys.stderr)
    return status


def _usage(error: cyclopts.CycloptsError) -> object:
    # These two errors would repeat the arguments, and one of them may be a token.
    if isinstance(error, cyclopts.UnknownCommandError):
        commands = (name for name in error.app or app if not name.startswith("-"))
        return f"no such command; there are {', '.join(commands)}"
    if isinstance(error, cyclopts.UnusedCliTokensError):
        return f"too many arguments: {len(error.unused_tokens or ())}; options begin with --, see --help"
    from pydantic import ValidationError  # noqa: PLC0415 - late: not every command has settings

    from authz.settings.environment import config_error  # noqa: PLC0415 - as above

    cause = error.__cause__ or error.__context__
    return config_error(cause) if isinstance(cause, ValidationError) else error


def say(*lines: str) -> None:
    """Print lines for people; control characters in quoted text never reach the terminal."""
    for line in lines:
        print(printable(line, _MAX_LINE))


def remark(*lines: str) -> None:
    """Print lines for people on standard error, beside what may be for programs."""
    for line in lines:
        print(printable(line, _MAX_LINE), file=sys.stderr)


def write(document: str) -> None:
    """Print text for programs unchanged: JSON, YAML or the like, which has escapes of its own."""
    print(document, end="" if document.endswith("\n") else "\n")


def standard_input() -> str:
    """Return all of standard input."""
    # As bytes, so that the locale does not matter; what is not UTF-8 cannot be a token.
    return sys.stdin.buffer.read().decode("utf-8", "replace")


def secret_in(file: str | Path, setting: str) -> str:
    """Return the token or the secret in a file, or in standard input where the name is ``-``."""
    return standard_input().strip() if str(file) == "-" else read_secret(file, setting)


def header_of(text: str) -> tuple[str, str]:
    """Return the name, in lower case, and the value of a header that an option gives as ``NAME:VALUE``."""
    name, colon, value = text.partition(":")
    name = name.strip().lower()
    if not name.isascii() or not name.isprintable() or not name or not colon:
        raise ConfigError("header: must be NAME:VALUE, such as --header x-tier:gold")
    return name, value.strip()
