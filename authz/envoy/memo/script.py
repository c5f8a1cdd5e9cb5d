"""The script that Envoy runs (``memo.lua``), with what stands before it."""

import functools
import json
from collections.abc import Iterable
from importlib.resources import files

from authz.call.metadata import TrustedMetadata
from authz.call.verb import OVERRIDES
from authz.envoy.check.answer import removals

NAME = "authz.memo"
"""The name of the filter, of the resource that carries its script, and of its metadata."""

DECIDED = "decided"
"""What is true in the metadata of a request for which an answer was repeated."""

NOTHING = "function envoy_on_request(handle) end\n"
"""A script that repeats nothing, so that Envoy asks about every request."""


@functools.lru_cache(1)
def _constant() -> str:
    return files(__package__).joinpath("memo.lua").read_text(encoding="utf-8")


def script(generation: str, trusted: TrustedMetadata, *, remove_authorization: bool) -> str:
    """Return the script of one generation.

    Args:
        generation: only answers of it are remembered; if it is empty, none is.
        trusted: the names that no caller may send.
        remove_authorization: whether the upstream is not to see the token.

    """
    if not generation:
        return NOTHING
    removed = _table(removals(trusted, remove_authorization=remove_authorization))
    known = f"{json.dumps(generation)}, {removed}, {_table(OVERRIDES)}"
    return f"local GENERATION, REMOVED, OVERRIDES = {known}\n{_constant()}"


def _table(names: Iterable[str]) -> str:
    # Names and generations have no characters that Lua and JSON write in different ways.
    return "{" + ", ".join(map(json.dumps, names)) + "}"
