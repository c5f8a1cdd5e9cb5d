"""A policy: deny rules first, then allow rules, else deny; and what is known about the organizations that call."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import Any
from weakref import ref

from authz.call.call import Call
from authz.call.memory import Memory
from authz.call.principal import Principal
from authz.call.requirements import Assurance
from authz.call.verb import check_verb
from authz.errors import ConfigError, PermissionDeniedError, suspended
from authz.organizations.organization import Organization
from authz.policy.closest import Closest
from authz.policy.index import OTHER, Index
from authz.policy.listing import Listing
from authz.policy.protos.access import access_of_file, access_of_services
from authz.policy.protos.declared import NO_PROTOS, Declared, Protos
from authz.policy.protos.descriptors import Descriptors
from authz.policy.rules import Rule, Words, headers_of
from authz.policy.text import compiler, schema
from authz.policy.text.digest import digest_of
from authz.policy.text.organizations import organizations_of
from authz.policy.text.quotas import quotas_from
from authz.runtime.text.document import Document, Fault, read

_REMEMBERED = 10_000
_LONGEST_REMEMBERED = 256
_MOST_REMEMBERED = 64

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Policy:
    """What each organization may do. Immutable; one object serves any number of threads and event loops.

    Build one with :meth:`from_file`, :meth:`from_services` or :meth:`from_descriptors`, or with :meth:`from_document`.

    Attributes:
        name: its name in the file; ``proto`` if there is no file.
        digest: the same for the same file, and for hardly any other.
        rules: every rule of the file, in the order in which they apply.
        requirements: what ``.proto`` files ask of the callers of a method, by the method.
        verbs: the HTTP methods that rules name; without any, no decision depends on the HTTP method.
        organizations: what is known about organizations, by id.
        organizations_file: the file that lists them, as the policy names it; empty if it lists them itself.
        public: methods that anybody may call.
        has_quotas: whether any organization has a quota.
        has_assurances: whether it asks the issuer about the tokens of any method.
        has_protos: whether ``.proto`` files declare who may call.

    """

    def __init__(self, document: Document, protos: Protos | None = None) -> None:
        try:
            schema.check(document.data)
            compiler.check_loggers(document.data)
            if protos is None:
                compiler.check_alone(document.data)
            quotas = quotas_from(document.data)
            self._stranger = Organization(quota=quotas.get(document.data.get("default_quota")))
            known = organizations_of(document, quotas, self._stranger.quota)
            self.digest = digest_of(document.data, known.listing.digest)
            names = compiler.Names(known, document.data.get("groups", ()))
            self._lists = compiler.rules_from(document, names)
            self._declared = Declared(protos or NO_PROTOS, document.data, names)
        except Fault as fault:
            raise document.error(fault) from None
        self.name: str = document.data["name"]
        self.organizations: Listing = known.listing
        self.organizations_file: str = document.data.get("organizations_file", "")
        self.public = self._declared.public
        self.requirements = self._declared.requirements
        self.has_quotas = bool(quotas)
        self.has_protos = protos is not None
        self.rules = (*self._lists[0].rules, *self._lists[1].rules)
        self.verbs: frozenset[str] = frozenset(verb for rule in self.rules for verb in rule.verbs or ())
        asked = document.data.get("introspect", {})
        self._assurances = {pattern: Assurance(**each) for pattern, each in asked.items()}
        self._closest = Closest(asked)
        self.has_assurances = bool(self._assurances or self._declared.assurances)
        self._admitted = Memory[tuple[int, str], tuple[ref[Principal], Organization, str]](_REMEMBERED)
        self._remembered = Memory[tuple[str, str, str, Words, Words], tuple[Rule, ...]](_REMEMBERED)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "Policy":
        """Read a policy: JSON where the name ends in ``.json``, else YAML, which needs the extra ``policy``.

        Raises:
            ConfigError: it cannot be read, or something in it is wrong; the message names file and line.

        """
        return cls._of(read(path))

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

    @classmethod
    def from_services(cls, names: Iterable[str], file: str | os.PathLike[str] | None = None) -> "Policy":
        """Build the policy that the ``.proto`` files of some services declare (``authz/v1/policy.proto``).

        Args:
            names: full names of services, such as ``orders.v1.OrderService``, whose generated modules are imported.
            file: a policy file that narrows it, and lists the organizations.

        Raises:
            ConfigError: the services declare nothing, or something in them or in the file is wrong.

        """
        return cls._of(_document(file), Protos.of(access_of_services(names), "services"))

    @classmethod
    def from_descriptors(
        cls, path: Descriptors | str | os.PathLike[str], file: str | os.PathLike[str] | None = None
    ) -> "Policy":
        """Build the policy that a descriptor set declares, as :meth:`from_services` does.

        Args:
            path: the descriptor set, which ``buf build -o api.binpb`` writes, or what has been read of it.
            file: a policy file that narrows it, and knows the organizations.

        Raises:
            ConfigError: a file cannot be read, the services declare nothing, or something in either is wrong.

        """
        document, descriptors = _document(file), Descriptors.of(path)
        return cls._of(document, Protos.of(access_of_file(descriptors), descriptors.source))

    @classmethod
    def _of(cls, document: Document, protos: Protos | None = None) -> "Policy":
        try:
            return cls(document, protos)
        finally:
            document.let_go()

    def __repr__(self) -> str:
        """Return its name, and how much it holds."""
        rules = len(self.rules) + len(self.requirements)
        return f"<Policy {self.name!a}: {rules} rules, {len(self.organizations)} organizations>"

    def organization(self, org_id: str) -> Organization:
        """Return what is known about an organization; if it is not listed, the default for such organizations."""
        return self.organizations.get(org_id, self._stranger)

    def let_go(self) -> Iterator[None]:
        """Free this policy, which is in force no more, a part at each step, as :meth:`Index.let_go` does."""
        parts, going = (self._admitted, self._remembered, self.organizations), [each.let_go() for each in self._lists]
        for each in going:
            next(each, None)
        del self
        for part in parts:
            yield from part.let_go()
        yield from chain.from_iterable(going)

    def admit(self, call: Call, principal: Principal, organization: Organization | None = None) -> str:
        """Return the name of the rule that allows ``principal`` to make ``call``.

        Args:
            call: the call.
            principal: who makes it.
            organization: what is known about the principal's, if that is more than is listed here.

        Raises:
            PermissionDeniedError: no rule does; its ``rule`` is the name of the one that denies it, if one does.
                Or rules name HTTP methods, and servers may take different ones for that of ``call``.
            InsufficientScopeError: it lacks only scopes that the ``.proto`` asks for.
            PeerUnknownError: the decision depends on ``call.peer``, which is ``None``.

        """
        if organization is None:
            organization = self.organization(principal.org_id)
        called = call.method
        if self.verbs:
            check_verb(call, self.verbs)
            called = _called(call, self.verbs)
        key = (id(principal), called)
        admitted = self._admitted.get(key)
        # By identity, which is quicker than comparing. No principal lives longer for it, so another may have its id.
        if admitted is not None and admitted[1] is organization and admitted[0]() is principal:
            return admitted[2]
        if organization.is_suspended:
            raise suspended()
        candidates = self._candidates(called, call, principal, organization.groups)
        rule = _deciding(candidates, call)
        if rule is None:
            raise PermissionDeniedError("no rule of the policy allows it", reason="policy_denied")
        if rule.is_deny:
            raise rule.refusal()
        is_sure = not candidates[0].is_conditional and not _asks_headers(self._lists, call.method)
        if is_sure and len(called) <= _LONGEST_REMEMBERED:
            # Every call to this method by this principal has the same verdict.
            self._admitted.remember(key, (ref(principal), organization, rule.name))
        return rule.name

    def decides_alike(self, call: Call, principal: Principal, organization: Organization) -> bool:
        """Say whether it is sure to allow every call of ``principal`` to the same method by the same HTTP method.

        That is, whatever the peer and the headers; but where :attr:`verbs` has any, only without a header that may
        replace the HTTP method.

        Args:
            call: a call that :meth:`admit` has allowed; of a very long method it is not known.
            principal: who made it, the same object.
            organization: what is known about the principal's.

        """
        admitted = self._admitted.get((id(principal), _called(call, self.verbs)))
        return admitted is not None and admitted[0]() is principal and admitted[1] is organization

    def candidates(
        self, call: Call, principal: Principal, groups: Words | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[Rule, ...]:
        """Return the rules that may decide about ``call``, in order; none after one that is sure to match.

        Args:
            call: the call.
            principal: who makes it.
            groups: of the principal's organization, if they are other than is listed here.
            headers: of the call, to leave out rules that these do not match; without it, none is left out.

        """
        groups = self.organization(principal.org_id).groups if groups is None else groups
        asked = call.method, call.verb, principal, groups, headers
        found = chain.from_iterable(each.find(*asked) for each in self._lists)
        return tuple(_up_to_certainty(self._declared.combined(found, call.method, principal, groups)))

    def assurance(self, method: str) -> Assurance | None:
        """Return how sure ``method`` must be that a token has not been withdrawn; ``None`` if it does not say."""
        if (declared := self._declared.assurances.get(method)) is not None:
            return declared
        pattern = self._closest.of(method) if self._assurances else None
        return None if pattern is None else self._assurances[pattern]

    def check_headers(self, reserved: Collection[str]) -> None:
        """Check that no rule asks for a header that callers may not send.

        Raises:
            ConfigError: one does; such a header is removed from every call, so only a forged one could match.

        """
        for rule in self.rules:
            for name, _ in rule.headers:
                if name in reserved:
                    raise ConfigError(
                        f"policy {self.name!a}: rule {rule.name!a} asks for the header {name!a}, which is removed "
                        "from every call; ask for source.organizations, clients or scopes"
                    )

    def check_clients(self) -> None:
        """Check that no rule allows clients by id alone: with several issuers, each may use any ``client_id``.

        Raises:
            ConfigError: one does.

        """
        for rule in (*self.rules, *self.requirements.values()):
            if rule.clients and not rule.is_deny and not rule.organizations and not rule.groups:
                raise ConfigError(
                    f"policy {self.name!a}: rule {rule.name!a} allows clients by their ids alone, which any of the "
                    "issuers may give to clients of its own; name their organizations or groups too"
                )

    def _candidates(self, called: str, call: Call, principal: Principal, groups: Words) -> tuple[Rule, ...]:
        """Return the rules that may decide, in order; none after one that is sure to match."""
        key = (called, principal.org_id, principal.client_id, principal.scopes, groups)
        candidates = self._remembered.get(key)
        if candidates is None:
            asks_headers = _asks_headers(self._lists, call.method)
            candidates = self.candidates(call, principal, groups, headers_of(call) if asks_headers else _NO_HEADERS)
            # The caller chooses the method, and must not fill the memory with long ones.
            if not asks_headers and len(called) <= _LONGEST_REMEMBERED and len(candidates) <= _MOST_REMEMBERED:
                self._remembered.remember(key, candidates)
        return candidates


def _document(file: str | os.PathLike[str] | None) -> Document:
    return Document({"name": "proto"}, "proto") if file is None else read(file)


def _called(call: Call, verbs: Collection[str]) -> str:
    """Return what is called, by which verdicts are remembered: the method, with the HTTP method if rules name any."""
    if not verbs:
        return call.method
    # No rule tells the others apart, and a caller must not fill the memory with them.
    return f"{call.verb if call.verb in verbs else OTHER} {call.method}"


def _asks_headers(lists: Iterable[Index], method: str) -> bool:
    return any(each.asks_headers(method) for each in lists)


def _deciding(candidates: Iterable[Rule], call: Call) -> Rule | None:
    headers: Mapping[str, str] | None = None
    for rule in candidates:
        if not rule.is_conditional:
            return rule
        if headers is None:
            headers = headers_of(call)
        if rule.matches_rest(call, headers):
            return rule
    return None


def _up_to_certainty(rules: Iterable[Rule]) -> Iterator[Rule]:
    for rule in rules:
        yield rule
        if not rule.is_conditional:
            return
