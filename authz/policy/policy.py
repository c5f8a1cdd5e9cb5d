"""A policy: deny rules, then allow rules, then no; and what is known of the organizations that call."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from authz.call import Call, Principal
from authz.decision import Evidence
from authz.errors import ConfigError, PermissionDeniedError
from authz.introspection import Assurance
from authz.policy import compiler, schema
from authz.policy.document import Document, Fault, read
from authz.policy.index import Index
from authz.policy.memory import Memory
from authz.policy.organizations import Organization, organizations_from
from authz.policy.rules import Rule, Words, headers_of
from authz.suspension import suspended

_REMEMBERED = 10_000
_LONGEST_REMEMBERED = 256
_STRANGER = Organization()


class Policy:
    """What each organization may do. Immutable; one object serves any number of threads and event loops.

    Build one with :meth:`from_file` or :meth:`from_document`.

    Attributes:
        name: what the file calls it.
        rules: every rule, in the order in which they are asked.
        organizations: what is known of organizations, by id.
        public: methods that anybody may call.

    """

    def __init__(self, document: Document) -> None:
        try:
            schema.check(document.data)
            compiler.check_loggers(document.data)
            organizations = organizations_from(document.data.get("organizations", {}))
            self.rules = compiler.rules_from(document.data, organizations)
        except Fault as fault:
            raise document.error(fault) from None
        self.name: str = document.data["name"]
        self.organizations: Mapping[str, Organization] = MappingProxyType(organizations)
        self.public: frozenset[str] = frozenset(document.data.get("public", ()))
        self._index = Index(self.rules)
        self._assurances = compiler.assurances_from(document.data.get("introspect", {}))
        self._remembered = Memory[tuple[str, str, str, Words], tuple[Rule, ...]](_REMEMBERED)
        self._identified = Memory[int, tuple[Principal, Principal]](_REMEMBERED)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "Policy":
        """Read a policy: JSON where the name ends in ``.json``, else YAML, which needs the extra ``policy``.

        Raises:
            ConfigError: it cannot be read, or something in it is wrong; the message names file and line.

        """
        return cls(read(path))

    @classmethod
    def from_document(cls, data: Mapping[str, Any], *, source: str = "policy") -> "Policy":
        """Build a policy from what ``json.loads`` returns of one.

        Args:
            data: the policy.
            source: what to call it in an error.

        Raises:
            ConfigError: something in it is wrong; the message says where.

        """
        return cls(Document(data, source))

    def __repr__(self) -> str:
        """Name it, and say how much it holds."""
        return f"<Policy {self.name!a}: {len(self.rules)} rules, {len(self.organizations)} organizations>"

    def admit(self, call: Call, principal: Principal, evidence: Evidence) -> Principal:
        """Return ``principal``, with its tenant, if it may make ``call``.

        Args:
            call: the call.
            principal: who makes it.
            evidence: is told the principal, this policy and the rule that decided.

        Raises:
            PermissionDeniedError: it may not.
            PeerUnknownError: that depends on ``call.peer``, which is ``None``.

        """
        evidence.policy = self.name
        organization = self.organizations.get(principal.org_id, _STRANGER)
        if organization.tenant:
            evidence.principal = principal = self._identify(principal, organization.tenant)
        if organization.is_suspended:
            raise suspended()
        rule = self._find(call, principal, organization.groups)
        if rule is None:
            raise PermissionDeniedError("no rule of the policy allows it", reason="policy_denied")
        evidence.rule = rule.name
        if rule.is_deny:
            raise PermissionDeniedError("a rule of the policy denies it", reason="policy_denied", rule=rule.name)
        return principal

    def rule_for(self, call: Call, principal: Principal) -> Rule | None:
        """Return the rule that decides about ``call``; without one it is denied.

        Raises:
            PeerUnknownError: that depends on ``call.peer``, which is ``None``.

        """
        return self._find(call, principal, self.organizations.get(principal.org_id, _STRANGER).groups)

    def is_suspended(self, principal: Principal) -> bool:
        """Say whether every call of the organization that ``principal`` acts for is refused."""
        return self.organizations.get(principal.org_id, _STRANGER).is_suspended

    @property
    def has_assurances(self) -> bool:
        """Whether it has the issuer asked about any token."""
        return bool(self._assurances)

    def assurance(self, method: str) -> Assurance | None:
        """Return how sure ``method`` must be that a token has not been withdrawn; ``None`` if it does not say."""
        return next((assurance for patterns, assurance in self._assurances if patterns.matches(method)), None)

    def check_headers(self, reserved: Collection[str]) -> None:
        """Check that no rule asks for a header that nobody may send.

        Raises:
            ConfigError: one does; such a header is removed from every call, so what a rule saw would be forged.

        """
        for rule in self.rules:
            for name, _ in rule.headers:
                if name in reserved:
                    raise ConfigError(
                        f"policy {self.name!a}: rule {rule.name!a} asks for the header {name!a}, which is removed "
                        "from every call; ask for source.organizations, clients or scopes"
                    )

    def _find(self, call: Call, principal: Principal, groups: Words) -> Rule | None:
        headers: Mapping[str, str] | None = None
        for rule in self._candidates(call.method, principal, groups):
            if not rule.is_conditional:
                return rule
            if headers is None:
                headers = headers_of(call)
            if rule.matches_rest(call, headers):
                return rule
        return None

    def _candidates(self, method: str, principal: Principal, groups: Words) -> tuple[Rule, ...]:
        """Return the rules that may decide, in order; none that come after one that is sure to match."""
        key = (method, principal.org_id, principal.client_id, principal.scopes)
        candidates = self._remembered.get(key)
        if candidates is None:
            candidates = tuple(_up_to_certainty(self._index.find(method, principal, groups)))
            # A caller chooses the method, and must not fill the memory with long ones.
            if len(method) <= _LONGEST_REMEMBERED:
                self._remembered.remember(key, candidates)
        return candidates

    def _identify(self, principal: Principal, tenant: str) -> Principal:
        # By identity, which is quicker than the hash of so many fields. The entry keeps the object, and so its id.
        remembered = self._identified.get(id(principal))
        if remembered is not None:
            return remembered[1]
        identified = replace(principal, tenant=tenant)
        self._identified.remember(id(principal), (principal, identified))
        return identified


def _up_to_certainty(rules: Iterable[Rule]) -> Iterator[Rule]:
    for rule in rules:
        yield rule
        if not rule.is_conditional:
            return
