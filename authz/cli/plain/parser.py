"""Options by the standard library, with errors as those of the other commands."""

import argparse
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn

from authz.cli.app import write
from authz.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """The options of one command.

    Args:
        name: of the command.
        description: what it does, in one line.

    Attributes:
        options: each option, in order.

    """

    def __init__(self, name: str, description: str) -> None:
        super().__init__(prog=f"authz {name}", description=description, allow_abbrev=False, add_help=False)
        self.options: list[argparse.Action] = []
        self._help = self._optionals.add_argument("--help", "-h", action="store_true", help="Show this and exit.")

    def option(self, name: str, help: str, **how: Any) -> None:  # noqa: A002 - the word of argparse
        """Add an option; see :meth:`argparse.ArgumentParser.add_argument`."""
        self.options.append(self.add_argument(f"--{name}", help=help.replace("%", "%%"), **how))

    def read(self, arguments: Sequence[str]) -> argparse.Namespace | None:
        """Return what was given; ``None`` if only help was asked for, which is then written.

        Raises:
            ConfigError: the options are used wrongly.

        """
        if {"--help", "-h"} & set(arguments):
            write(self.format_help())
            return None
        given, rest = self.parse_known_args(arguments)
        if rest:
            # Without what may be a token.
            options = [each.partition("=")[0] for each in rest if each.startswith("--")]
            if options:
                nearest = difflib.get_close_matches(options[0], self._option_string_actions, n=1)
                hint = f" Did you mean {nearest[0]}?" if nearest else " See --help."
                raise ConfigError(f"Unknown option: {options[0]}.{hint}")
            raise ConfigError(f"too many arguments: {len(rest)}; options begin with --, see --help")
        return given

    def error(self, message: str) -> NoReturn:
        """Raise an error that is reported as those of other commands."""
        raise ConfigError(message)
