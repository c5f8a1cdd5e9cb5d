"""Makes untrusted text fit for a log and a terminal: one line, every character visible, and not long.

A caller chooses its path, an issuer its messages, an operator the names in a file. None of these may move the cursor,
hide or reorder the text beside them, begin a new line, or fill the disk.
"""

import re

MAX_CHARACTERS = 1024
"""How many characters of a text are shown."""

# For "[… more characters]", with a number that no text exceeds.
_MARK_CHARACTERS = 40

# Characters without a glyph that str.isprintable() lets pass: Unicode's Default_Ignorable_Code_Point, and a blank.
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")


def bounded(text: str, at_most: int = MAX_CHARACTERS) -> str:
    """Return ``text``; if it is long, its beginning and how many characters follow.

    Args:
        text: any text.
        at_most: the most characters to return, the mark included.

    """
    if len(text) <= at_most:
        return text
    kept = at_most - _MARK_CHARACTERS
    return f"{text[:kept]}[{len(text) - kept} more characters]"


def printable(text: str, at_most: int = MAX_CHARACTERS) -> str:
    r"""Return ``text`` in one line, with escapes such as ``\x1b`` and ``\u202e`` for invisible characters.

    Letters of every script stay as they are, and so does a backslash: the result is for people, not for programs.

    Args:
        text: any text, lone surrogates included.
        at_most: how many characters of it are shown; see :func:`bounded`.

    """
    text = bounded(text, at_most)
    if text.isprintable() and not _BLANK.search(text):
        return text
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character.isprintable() and not _BLANK.match(character):
        return character
    return character.encode("unicode_escape").decode("ascii")
