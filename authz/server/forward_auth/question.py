"""A question of a proxy over HTTP, read into the call that it is about. Pure but for what it logs."""

import functools
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from authz.call.call import MAX_ENTRIES, Call, malformed
from authz.call.metadata import TrustedMetadata
from authz.errors import PermissionDeniedError
from authz.http.headers import Header, RawHeaders, Sorting
from authz.http.targets import path_in
from authz.runtime import telemetry

Headers = Literal["original", "forwarded", "none"]
"""Where a question says what it is about; see :data:`NAMES`."""

NAMES: dict[Headers, tuple[bytes, ...]] = {
    "original": (b"x-original-method", b"x-original-uri"),
    "forwarded": (b"x-forwarded-method", b"x-forwarded-uri"),
    "none": (),
}
"""The headers with the method and the target of the request; without any they are those of the question itself."""

ASKED_AT = "/authz"
"""The path of questions that are about another one. A proxy that asks at the target of the request itself would let
callers send these headers."""

# Some proxies and servers take a target from these as well, so a caller who sends one means to be read in two ways.
_OTHERS = (b"x-original-url", b"x-rewrite-url")

# A method as servers know them, in capitals (RFC 9110 section 9.1), of a length that a log can bear.
_VERB = re.compile(r"[A-Z][A-Z_-]{0,31}")
_LETTERS = re.compile(rb"[a-z0-9-]+")
_BETWEEN_WORDS = re.compile(r"[^a-z0-9]")


class Question(NamedTuple):
    """What a proxy asks about.

    Attributes:
        call: the call.
        target: its path and query as they were sent.
        fault: why it cannot be allowed to any caller, if so; the caller learns it only once it is known.

    """

    call: Call
    target: str
    fault: PermissionDeniedError | None


class Reader:
    """Read questions.

    Args:
        headers: where they say what they are about.
        trusted: the names that no caller may send. A proxy that asks here removes them itself; so where one of them
            arrives nevertheless, the upstream might see it, too.

    """

    def __init__(self, headers: Headers, trusted: TrustedMetadata) -> None:
        self._names = NAMES[headers]
        self._foreign = frozenset(name for names in NAMES.values() for name in names) - {*self._names} | {*_OTHERS}
        self._told = frozenset((*self._names, *self._foreign))
        self._wanted = " and ".join(name.decode() for name in self._names)
        self._sorting = Sorting(trusted)
        self._reserved = trusted.reserved

    def read(self, verb: str, target: str, raw: Sequence[Header]) -> Question:
        """Return what a question is about.

        Args:
            verb: the method of the question.
            target: its target.
            raw: its headers, with names in lower case.

        Raises:
            PermissionDeniedError: it does not say so, or says more than one thing, or has headers that the proxy
                should have removed; the reason is ``request_malformed``. An event of the log names the remedy.

        """
        if len(raw) > MAX_ENTRIES:
            raise malformed()
        verb, target = self._said(verb, target, raw)
        headers = self._sorting.sort(raw)
        forged = len(headers.kept) < len(raw) or any(self._is_reserved(name) for name, _ in raw)
        if forged:
            raise _mistaken("have the proxy remove the trusted headers of callers before it asks")
        method, fault = target.partition("?")[0], None
        try:
            method = path_in(target)
        except PermissionDeniedError as error:
            fault = error
        if not _VERB.fullmatch(verb) or verb == "CONNECT":
            # A tunnel has no path; and servers differ on methods in lower case.
            fault = malformed()
        call = Call(
            method=method,
            metadata=RawHeaders(raw),
            credentials=headers.credentials,
            size=headers.size,
            verb=verb,
        )
        return Question(call, target, fault)

    def _said(self, verb: str, target: str, raw: Sequence[Header]) -> tuple[str, str]:
        """Return the method and the target that a question is about."""
        found = [header for header in raw if header[0] in self._told]
        said = dict(found)
        if not self._foreign.isdisjoint(said):
            # The proxy sets it, so the setting is wrong; or a caller does, to be judged by it instead.
            names = ", ".join(sorted(name.decode() for name in self._foreign & said.keys()))
            raise _mistaken(f"{names}: have the proxy remove it from its questions, or compare forward_auth_headers")
        if not self._names:
            return verb, target
        # Caddy leaves the query of the request there.
        if target.partition("?")[0] != ASKED_AT:
            raise _mistaken(f"have the proxy ask at {ASKED_AT}, or compare forward_auth_headers")
        if len(found) != len(self._names) or len(said) != len(self._names):
            raise _mistaken(f"have the proxy set {self._wanted}, each once, or compare forward_auth_headers")
        verb, target = (said[name].decode("latin-1") for name in self._names)
        return verb, target

    def _is_reserved(self, name: bytes) -> bool:
        return not _LETTERS.fullmatch(name) and _with_hyphens(name) in self._reserved


# The caller chooses names; few are like this.
@functools.lru_cache(1024)
def _with_hyphens(name: bytes) -> str:
    """Return a name as servers may have it that make a variable of it: PHP, for one, reads dots as underscores."""
    return _BETWEEN_WORDS.sub("-", name.decode("latin-1"))


def _mistaken(why: str) -> PermissionDeniedError:
    # With "where", so that it is sampled: a caller may bring it about.
    telemetry.event(telemetry.INFO, "forward_auth_mistaken", where="forward_auth", why=why)
    return malformed()
