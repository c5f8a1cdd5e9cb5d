"""The flags of a supervisor, passed on to its workers: reading a command line takes a third of what a start costs.

A worker reads everything else anew, variables and files, so that one that is started later follows what has changed.
"""

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from authz.settings.settings import Settings

VARIABLE = "_AUTHZ_FLAGS"
"""The environment variable with the flags, as JSON by name."""

# Bytes. Linux starts no process with a variable of 128 KiB; longer flags each worker reads from its command line.
_MOST = 64 * 1024


def passed_on(settings: "Settings") -> Mapping[str, str]:
    """Return the variables by which workers are told the flags of ``settings``."""
    text = json.dumps(settings.given)
    return {VARIABLE: text} if len(text) <= _MOST else {}


def are_passed_on() -> bool:
    """Say whether a supervisor has told this process its flags."""
    return VARIABLE in os.environ


def take() -> dict[str, Any]:
    """Return the flags that a supervisor has told this process; they are told to no other."""
    flags: dict[str, Any] = json.loads(os.environ.pop(VARIABLE))
    return flags
