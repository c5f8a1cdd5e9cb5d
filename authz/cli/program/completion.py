"""``authz completion``."""

from typing import Literal

from authz.cli.app import write


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script that completes commands and options in a shell: source <(authz completion bash).

    Parameters
    ----------
    shell
        bash, zsh or fish.

    """
    from authz.cli.program.commands import app  # noqa: PLC0415 - it names this module

    script = app.generate_completion(shell=shell)
    # Where it knows no word, bash then completes names of files: many settings are paths.
    write(script.replace("\ncomplete -F ", "\ncomplete -o default -F "))
