"""What a measurement needs and this machine does not have."""

import shutil


class MissingError(Exception):
    """A figure cannot be had here; the text says what is missing, and the remedy."""


def program(name: str, purpose: str, remedy: str) -> str:
    """Return where a program is.

    Args:
        name: the program.
        purpose: what it is needed for, as the beginning of a sentence.
        remedy: what brings it.

    Raises:
        MissingError: it is not installed.

    """
    found = shutil.which(name)
    if found is None:
        raise MissingError(f"{purpose} {name}, which is not installed. On Debian and Ubuntu: {remedy}")
    return found
