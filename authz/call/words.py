"""What ids, scopes and names may look like, wherever they come from: most become headers and fields of logs."""

import itertools
import re
from collections.abc import Iterator

# WorkOS writes org_ and a ULID. Whatever the pattern, the value becomes a header.
ORG_ID_PATTERN = r"org_[A-Za-z0-9]{1,64}"

# Visible ASCII, no comma (a list in HTTP), no quote or backslash.
IDENTIFIER = r"[!#-+\--\[\]-~]{1,256}"
_IDENTIFIER = re.compile(IDENTIFIER, re.ASCII)

# RFC 6749 section 3.3, with blanks between several; together they become one header.
SCOPE = r"[!#-\[\]-~]+"
SCOPES = re.compile(r"[ !#-\[\]-~]{0,2048}", re.ASCII)

WORD = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
"""The pattern of the name of a group or of a plan."""

MAX_TIME = 253_402_300_799
"""The end of the year 9999 in POSIX seconds, where google.protobuf.Timestamp ends too."""


def is_identifier(value: str) -> bool:
    """Say whether ``value`` can become a header and a field of a log line."""
    return _IDENTIFIER.fullmatch(value) is not None


def is_scope(value: str) -> bool:
    """Say whether ``value`` is one scope (RFC 6749 section 3.3) and fits into a header."""
    return value != "" and " " not in value and SCOPES.fullmatch(value) is not None


def spellings(name: str) -> Iterator[str]:
    """Yield ``name`` with every mixture of hyphens and underscores."""
    for joints in itertools.product("-_", repeat=name.count("-")):
        words = name.split("-")
        yield words[0] + "".join(joint + word for joint, word in zip(joints, words[1:], strict=True))
