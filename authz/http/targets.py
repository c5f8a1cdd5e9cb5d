"""The path in a request target as it was sent, where a proxy hands it on without having read it.

Pure. A proxy may route by its own reading of a target and pass on the target itself, which its upstream reads again. So
only those are accepted that every server reads alike.
"""

import re
from urllib.parse import unquote

from authz.call.call import MAX_METHOD, malformed
from authz.http.paths import path_of

# RFC 9112 section 3.2.1, origin-form; "#" ends it for some servers. Not "\\", which some read as "/".
_TARGET = re.compile(r"/[!\"$->@-\[\]-~]*(?:\?[!\"$-~]*)?")
# What is no percent-encoding, or is one that changes the segments once it is decoded (RFC 3986 section 2.2).
_UNSAFE = re.compile(r"%(?![0-9A-Fa-f]{2})|%(?:2[Ff]|5[Cc]|[01][0-9A-Fa-f]|7[Ff])")
# Servers that know parameters of segments (RFC 3986 section 3.3) drop them before they look at dots.
_STEP_IN_DISGUISE = re.compile(r"/\.\.?;")
_STILL_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")


def path_in(target: str) -> str:
    """Return the path in a target, in the one spelling that rules compare.

    Args:
        target: path and query, as a client has sent them.

    Raises:
        PermissionDeniedError: it is no absolute path, or servers may read it in several ways: because of dots, empty
            segments, a fragment, or something that is encoded twice or is part of the structure once it is decoded; or
            it is too long. The reason is ``request_malformed``.

    """
    path = target.partition("?")[0]
    if len(path) > MAX_METHOD or not _TARGET.fullmatch(target) or _UNSAFE.search(path):
        raise malformed()
    if "%" not in path and ";" not in path:
        return path_of(path)
    # What is not UTF-8 becomes lone surrogates, which are refused.
    decoded = unquote(path, errors="surrogateescape")
    if _STEP_IN_DISGUISE.search(decoded) or _STILL_ENCODED.search(decoded):
        raise malformed()
    return path_of(decoded)
