"""What the configuration of a route asks of callers besides a good token, as an operator writes it for Envoy.

Text that cannot be understood was meant to close the route, so it refuses every caller.
"""

import functools
import re
from collections.abc import Iterable, Mapping

from authz.call.requirements import Requirements
from authz.call.words import is_scope

_NAMES = frozenset({"audience", "scopes", "policy"})
# Other names belong to other filters; but one that only looks like ours was meant to close the route.
_LIKE_OURS = re.compile(r"\W*(audiences?|scopes?|polic(y|ies)|authz[\W_].*)\W*", re.IGNORECASE | re.DOTALL)

# As for the scopes of a token; all of them become one header.
_MAX_SCOPES = 2048


def requirements_from(extensions: Mapping[str, str]) -> Requirements | None:
    """Return what ``extensions`` ask, or ``None`` if none of them is meant for us.

    Args:
        extensions: ``audience``, one value of ``aud``; ``scopes``, with blanks between them; ``policy``, a name.
            Other names are left to other filters, unless they are misspellings of these, or begin with ``authz.``.

    """
    return _requirements(frozenset(extensions.items()))


# Few routes, many calls.
@functools.lru_cache(1024)
def _requirements(extensions: Iterable[tuple[str, str]]) -> Requirements | None:
    ours = {name: value for name, value in extensions if _LIKE_OURS.fullmatch(name)}
    if not ours:
        return None
    scopes = ours.get("scopes", "").split()
    mistakes = [name for name, value in ours.items() if name not in _NAMES or not value.strip()]
    if len(ours.get("scopes", "")) > _MAX_SCOPES or not all(map(is_scope, scopes)):
        mistakes.append("scopes")
    if mistakes:
        return Requirements(mistake=min(mistakes))
    return Requirements(audience=ours.get("audience", ""), scopes=frozenset(scopes), policy=ours.get("policy", ""))
