"""The same commands for cyclopts, which makes the list of all commands and completions of what it knows."""

import inspect
from argparse import Action, BooleanOptionalAction
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from authz.cli.plain.parser import Parser


def _listed(name: str) -> Callable[..., object]:
    parser: Parser = import_module(f"authz.cli.plain.{name}").parser()

    def command(**_: object) -> None:
        # The command has run before any of this is imported.
        raise NotImplementedError

    command.__doc__ = parser.description
    command.__signature__ = inspect.Signature([_parameter(each) for each in parser.options])  # type: ignore[attr-defined]
    return command


def _parameter(action: Action) -> inspect.Parameter:
    kind: Any = Path if action.metavar == "FILE" else str
    if action.choices is not None:
        kind = Literal[tuple(action.choices)]
    is_switch = action.nargs == 0
    has_negative = isinstance(action, BooleanOptionalAction)
    shown = Parameter(name=action.option_strings[0], negative=None if has_negative else (), help=action.help)
    return inspect.Parameter(
        action.dest,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if action.required else action.default,
        annotation=Annotated[bool if is_switch else kind, shown],
    )


healthcheck, protos, token = map(_listed, ("healthcheck", "protos", "token"))
