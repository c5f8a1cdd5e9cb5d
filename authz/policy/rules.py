"""One rule: its conditions, and when it makes another rule pointless."""

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from authz.call.call import Call
from authz.call.principal import Principal
from authz.errors import PeerUnknownError, PermissionDeniedError
from authz.policy.patterns import Patterns
from authz.runtime.text.document import Fault

H = TypeVar("H", bound=Hashable)

Words = frozenset[str]

PROTO = "proto:"
"""The prefix of the names of rules from ``.proto`` files: ``proto:/orders.v1.OrderService/GetOrder``."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})

# To look at so many patterns takes no longer than to look at a rule.
_LIGHT = 8

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

    @property
    def weight(self) -> int:
        """How long it takes to compare a call with it, as a multiple of the usual rule."""
        parts = len(self.headers) + len(self.scopes)
        for patterns in (self.paths, self.principals, *[values for _, values in self.headers]):
            if patterns is not None:
                parts += len(patterns.prefixes) + len(patterns.suffixes)
        return 1 + self.is_conditional + parts // _LIGHT

    def concerns(self, method: str, verb: str, principal: Principal, groups: Words) -> bool:
        """Say whether a call meets its conditions, apart from those on headers and peer.

        Args:
            method: what is called.
            verb: the HTTP method.
            principal: who calls.
            groups: of the principal's organization.

        """
        return (
            self.has_caller(principal, groups)
            and (self.verbs is None or verb in self.verbs)
            and (self.paths is None or self.paths.matches(method))
            and self.has_scopes(principal.scopes)
        )

    def has_caller(self, principal: Principal, groups: Words) -> bool:
        """Say whether ``principal``, of an organization in ``groups``, meets its conditions, apart from scopes."""
        return (
            (self.organizations is None or principal.org_id in self.organizations)
            and (self.clients is None or principal.client_id in self.clients)
            and (self.groups is None or not self.groups.isdisjoint(groups))
        )

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

    def covers(self, other: "Rule") -> bool:
        """Say whether it matches whatever ``other`` matches."""
        return (
            _includes(self.organizations, other.organizations)
            and _includes(self.clients, other.clients)
            and _includes(self.groups, other.groups)
            and _includes(self.verbs, other.verbs)
            and (self.paths is None or (other.paths is not None and self.paths.covers(other.paths)))
            and self._covers_rest(other)
        )

    def _covers_rest(self, other: "Rule") -> bool:
        return (
            (not self.scopes or (bool(other.scopes) and all(map(self.has_scopes, other.scopes))))
            and all(
                any(key == name and values.covers(others) for name, others in other.headers)
                for key, values in self.headers
            )
            and (self.principals is None or (other.principals is not None and self.principals.covers(other.principals)))
        )


def _includes(words: Words | None, others: Words | None) -> bool:
    return words is None or (others is not None and others <= words)


def headers_of(call: Call) -> dict[str, str]:
    """Return the headers of a call, in lower case; several of one name are joined with commas (A43)."""
    values: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in call.metadata:
        # Binary ones are bytes here and base64 there, so no rule may ask for them.
        if isinstance(value, str):
            values[name.lower()].append(value)
    # Joined at once: to append one copy after another takes quadratic time.
    return {name: ",".join(copies) for name, copies in values.items()}


class Shared:
    """Words and patterns that several rules have, to be kept once."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, Any] = {}

    def words(self, words: list[str] | None) -> Words | None:
        """Return ``words``; ``None`` if there are none, which asks for nothing (A43)."""
        return self.one(frozenset([self.one(word) for word in words])) if words else None

    def patterns(self, texts: list[str] | None) -> Patterns | None:
        """Return the patterns that ``texts`` stand for; ``None`` if there are none, which asks for nothing (A43)."""
        return self.one(Patterns.of(texts)) if texts else None

    def one(self, value: H) -> H:
        """Return what is equal to ``value``, the same object every time."""
        one: H = self._seen.setdefault(value, value)
        return one

    def let_go(self) -> None:
        """Forget everything piece by piece: to free it at once would stop every thread for milliseconds."""
        while self._seen:
            self._seen.popitem()


def rule_from(data: Mapping[str, Any], shared: Shared, *, is_deny: bool) -> Rule:
    """Return the rule that a document describes, which has been checked against the schema.

    Args:
        data: that part of the document.
        shared: what rules of the same document have in common.
        is_deny: whether it denies.

    Raises:
        Fault: it asks for a header that no rule may ask for.

    """
    source, request = data.get("source", _NOTHING), data.get("request", _NOTHING)
    return Rule(
        name=data["name"],
        is_deny=is_deny,
        paths=shared.patterns(request.get("paths")),
        verbs=shared.words(request.get("methods")),
        headers=tuple(
            [
                (_header_name(header["key"], index), shared.one(Patterns.of(header["values"])))
                for index, header in enumerate(request.get("headers", ()))
            ]
        ),
        principals=shared.patterns(source.get("principals")),
        organizations=shared.words(source.get("organizations")),
        groups=shared.words(source.get("groups")),
        clients=shared.words(source.get("clients")),
        scopes=tuple([shared.one(frozenset(texts.split(" "))) for texts in source.get("scopes", ())]),
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
