"""All commands with their help, by cyclopts."""

from collections.abc import Sequence

import cyclopts
from cyclopts import Group, Parameter

from authz.cli.app import ReaderGoneError, version
from authz.cli.program.table import COMMANDS, PLAIN
from authz.errors import ConfigError

app = cyclopts.App(
    name="authz",
    help="Verified organizations for gRPC: WorkOS Connect M2M tokens, in process and behind Envoy.",
    version=version,
    version_flags="--version",
    version_format="plaintext",
    help_on_error=False,
    default_parameter=Parameter(negative_iterable=()),
)
app["--help"].group = app["--version"].group = Group("Help", sort_key=len(COMMANDS))


def run(arguments: Sequence[str]) -> object:
    """Run the command that ``arguments`` name, and return what it returns.

    Raises:
        ConfigError: it is used wrongly.
        ReaderGoneError: the reader of its help has gone.

    """
    try:
        _import_commands(arguments)
        return app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except cyclopts.CycloptsError as error:
        raise ConfigError(str(_usage(error))) from None
    except SystemExit as error:
        # So ends rich where a reader has gone, and nothing else here.
        if error.code == 1:
            raise ReaderGoneError from None
        raise


def _import_commands(arguments: Sequence[str]) -> None:
    """Import the command that ``arguments`` name; without one all, so that their help can be listed."""
    names, apps, _ = app.parse_commands(list(arguments))
    if "--version" not in names:
        group_or_command = [each for name, each in zip(("", *names), apps, strict=True) if not name.startswith("-")][-1]
        group_or_command.resolved_commands()


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


for _number, (_title, _commands) in enumerate(COMMANDS.items()):
    _group = Group(_title, sort_key=_number)
    for _command in _commands:
        _place = f"authz.cli.plain.listed:{_command}" if _command in PLAIN else f"authz.cli.{_command}"
        app.command(_place, group=_group)
