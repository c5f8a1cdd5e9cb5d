"""``authz protos``."""

from collections.abc import Sequence
from pathlib import Path

from authz.cli.app import ALLOWED, write
from authz.cli.plain.parser import Parser


def parser() -> Parser:
    """Return the options of the command."""
    return Parser("protos", "Print the folder of the .proto files, for protoc -I and buf.")


def run(arguments: Sequence[str]) -> int:
    """Run the command, and return its exit code."""
    if parser().read(arguments) is not None:
        here = Path(__file__).parents[2]
        # In a wheel they lie inside the package, in a checkout beside it.
        write(str(next(folder for folder in (here / "protos", here.parent / "protos") if folder.is_dir())))
    return ALLOWED
