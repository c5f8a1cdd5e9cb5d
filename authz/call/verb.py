"""The HTTP method of a call, for rules that tell HTTP methods apart."""

import re
from collections.abc import Collection
from operator import itemgetter

from authz.call.call import Call, malformed
from authz.call.words import spellings

VERB = "[A-Z][A-Z0-9_-]{0,31}"
"""The pattern of an HTTP method that a rule may name: a token (RFC 9110 section 9.1), as all registered ones are.

Some frameworks read ``delete`` as ``DELETE``, so one with small letters is none.
"""

MAX_VERB = 32
"""How many characters it has at the most."""

KNOWN = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"))
"""Those of RFC 9110 section 9.3, and PATCH (RFC 5789)."""

OVERRIDES = tuple(
    spelling
    for name in ("x-http-method-override", "x-http-method", "x-method-override")
    for spelling in spellings(name)
)
"""Headers that some frameworks take for the HTTP method, whatever the request says; also with underscores for hyphens.
"""

REGISTERED = frozenset(
    (
        *("ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "CONNECT", "COPY", "DELETE", "GET", "HEAD"),
        *("LABEL", "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE"),
        *("MOVE", "OPTIONS", "ORDERPATCH", "PATCH", "POST", "PRI", "PROPFIND", "PROPPATCH", "PUT", "QUERY", "REBIND"),
        *("REPORT", "SEARCH", "TRACE", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE", "UPDATEREDIRECTREF"),
        "VERSION-CONTROL",
    )
)
"""What the IANA's registry of HTTP methods has."""

_VERB, _OVERRIDES = re.compile(VERB), frozenset(OVERRIDES)


def is_verb(text: str) -> bool:
    """Say whether ``text`` is an HTTP method that a rule may name."""
    return _VERB.fullmatch(text) is not None


def check_verb(call: Call, named: Collection[str] = ()) -> None:
    """Check that every server takes the same HTTP method for that of ``call``.

    Args:
        call: the call.
        named: HTTP methods that rules name.

    Raises:
        PermissionDeniedError: it is none that a rule may name, or a header may replace it.

    """
    if call.verb not in named and not is_verb(call.verb):
        raise malformed()
    # Some metadata has the names without looking at what is beside them.
    names = getattr(call.metadata, "names", None)
    found = map(itemgetter(0), call.metadata) if names is None else names()
    if not _OVERRIDES.isdisjoint(map(str.lower, found)):
        raise malformed()
