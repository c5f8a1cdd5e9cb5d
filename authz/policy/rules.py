"""One rule: its conditions, and when it makes another rule pointless."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from authz.call.call import Call
from authz.errors import PeerUnknownError, PermissionDeniedError
from authz.policy.patterns import Patterns
from authz.runtime.text.document import Fault

Words = frozenset[str]

PROTO = "proto:"
"""The prefix of the names of rules from ``.proto`` files: ``proto:/orders.v1.OrderService/GetOrder``."""

# gRFC A43 names the kinds, grpc-go the headers: hop-by-hop ones (RFC 9110 section 7.6.1), and those that are not a
# call's.
_UNSUPPORTED = frozenset(
    {
        *("connection", "host", "keep-alive", "proxy-authenticate", "proxy-authorization"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of a policy; ``None`` and empty mean that there is no such condition.

    Args:
        name: its name in logs.
        is_deny: whether it denies what it matches; else it allows it.
        paths: full method names.
        verbs: HTTP methods.
        headers: names in lower case, each with what the header's value must match.
        principals: identities of the peer's certificate.
        organizations: by id.
        groups: the organization must be in one of them.
        clients: by id.
        scopes: sets of scopes; the token must hold all of one set.

    """

    name: str
    is_deny: bool
    paths: Patterns | None = None
    verbs: Words | None = None
    headers: tuple[tuple[str, Patterns], ...] = ()
    principals: Patterns | None = None
    organizations: Words | None = None
    groups: Words | None = None
    clients: Words | None = None
    scopes: tuple[Words, ...] = ()

    @property
    def is_conditional(self) -> bool:
        """Whether it has conditions on headers or peer, so that calls of one caller to one method may differ."""
        return bool(self.headers) or self.principals is not None

    def has_scopes(self, scopes: Words) -> bool:
        """Say whether ``scopes`` meet its condition."""
        return not self.scopes or any(needed <= scopes for needed in self.scopes)

    def matches_rest(self, call: Call, headers: Mapping[str, str]) -> bool:
        """Say whether ``call`` meets its conditions on headers and peer.

        Args:
            call: the call.
            headers: :func:`headers_of` the call.

        Raises:
            PeerUnknownError: the result depends on ``call.peer``, which is ``None``.

        """
        if not all(key in headers and values.matches(headers[key]) for key, values in self.headers):
            return False
        if self.principals is None:
            return True
        if call.peer is None:
            raise PeerUnknownError("peer")
        return any(map(self.principals.matches, call.peer.principals))

    def refusal(self) -> PermissionDeniedError:
        """Return the refusal for a caller that it denies."""
        return PermissionDeniedError("a rule of the policy denies it", reason="policy_denied", rule=self.name)

    def covers_rest(self, other: "Rule") -> bool:
        """Say whether ``other`` has all of its conditions on scopes, headers and peer."""
        return (
            (not self.scopes or (bool(other.scopes) and all(map(self.has_scopes, other.scopes))))
            and all(
                any(key == name and values.covers(others) for name, others in other.headers)
                for key, values in self.headers
            )
            and (self.principals is None or (other.principals is not None and self.principals.covers(other.principals)))
        )


def headers_of(call: Call) -> dict[str, str]:
    """Return the headers of a call, in lower case; several of one name are joined with commas (A43)."""
    values: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in call.metadata:
        # Binary ones are bytes here and base64 there, so no rule may ask for them.
        if isinstance(value, str):
            values[name.lower()].append(value)
    # Joined at once: to append one copy after another takes quadratic time.
    return {name: ",".join(copies) for name, copies in values.items()}


def rule_from(data: Mapping[str, Any], *, is_deny: bool) -> Rule:
    """Return the rule that a document describes, which has been checked against the schema.

    Raises:
        Fault: it asks for a header that no rule may ask for.

    """
    source, request = data.get("source", {}), data.get("request", {})
    return Rule(
        name=data["name"],
        is_deny=is_deny,
        paths=_patterns(request.get("paths")),
        verbs=_words(request.get("methods")),
        headers=tuple(
            (_header_name(header["key"], index), Patterns.of(header["values"]))
            for index, header in enumerate(request.get("headers", ()))
        ),
        principals=_patterns(source.get("principals")),
        organizations=_words(source.get("organizations")),
        groups=_words(source.get("groups")),
        clients=_words(source.get("clients")),
        scopes=tuple(frozenset(words.split(" ")) for words in source.get("scopes", ())),
    )


def _header_name(key: str, index: int) -> str:
    name = key.lower()
    if name.startswith((":", "grpc-")) or name in _UNSUPPORTED:
        reason = "it belongs to the connection or to gRPC, so no rule may ask for it"
    elif name.endswith("-bin"):
        reason = "it is binary, so it cannot be compared with text"
    else:
        return name
    raise Fault(f"the header {key!a}: {reason}", "request", "headers", index, "key")


def _patterns(texts: list[str] | None) -> Patterns | None:
    # As A43 has it, an empty list asks for nothing.
    return Patterns.of(texts) if texts else None


def _words(words: list[str] | None) -> Words | None:
    return frozenset(words) if words else None
