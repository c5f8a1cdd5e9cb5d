"""What ``.proto`` files ask of callers, and a policy file beside them: it grants no more unless it overrides.

What they ask of a method becomes one rule, which comes after the deny rules of the file and before its allow rules.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from authz.call.principal import Principal
from authz.call.requirements import Assurance
from authz.errors import ConfigError, InsufficientScopeError, PermissionDeniedError
from authz.policy.closest import Closest
from authz.policy.patterns import Patterns
from authz.policy.protos.access import Access
from authz.policy.rules import PROTO, Rule, Words
from authz.policy.text.compiler import Names
from authz.runtime.text.document import Fault


class Protos(NamedTuple):
    """What ``.proto`` files declare.

    Args:
        access: what they ask for, by method; other methods declare nothing.
        source: how errors name them.

    """

    access: Mapping[str, Access]
    source: str

    @classmethod
    def of(cls, access: Mapping[str, Access | None], source: str) -> "Protos":
        """Return the methods that declare something.

        Raises:
            ConfigError: none does.

        """
        declared = {method: each for method, each in access.items() if each is not None}
        if not declared:
            raise ConfigError(
                f"{source}: no method declares who may call it; give its service (authz.v1.default_access), or it "
                "(authz.v1.access)"
            )
        return cls(declared, source)


NO_PROTOS = Protos(MappingProxyType({}), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmet(Rule):
    """A rule that denies a caller who does not meet what a ``.proto`` asks for.

    Args:
        lacking: scopes that would suffice, if the caller lacks nothing else.

    """

    lacking: Words = frozenset()

    def refusal(self) -> PermissionDeniedError:
        """Return the refusal; if only scopes are missing, it names them (RFC 6750 section 3.1)."""
        if self.lacking:
            return InsufficientScopeError(self.lacking, rule=self.name)
        return PermissionDeniedError("the .proto asks for more", reason="policy_denied", rule=self.name)


class Declared:
    """What ``.proto`` files ask for, combined with a policy file.

    Args:
        protos: what they declare.
        data: the policy file, which has been checked against the schema.
        names: the organizations and groups that the file lists.

    Attributes:
        public: methods that the files declare public, or the policy file.
        requirements: what is asked of the callers of each method; empty if the rules of the policy file decide alone.
        assurances: how sure the issuer's word must be, for methods that the policy file does not name.

    Raises:
        Fault: the policy file grants what the ``.proto`` files do not.
        ConfigError: they name organizations or groups that the policy file does not list.

    """

    def __init__(self, protos: Protos, data: Mapping[str, Any], names: Names) -> None:
        overrides: bool = data.get("override", False)
        if not overrides:
            _check_public(protos, data.get("public", ()))
        if names.are_given:
            # They can be checked only if the policy file lists any.
            _check_names(protos, names)
        public = (method for method, access in protos.access.items() if access.public)
        self.public: frozenset[str] = frozenset(public).union(data.get("public", ()))
        self.assurances = _assurances(protos, data.get("introspect", {}), overrides=overrides)
        self._is_narrowed = "allow_rules" in data
        asked = {} if overrides and self._is_narrowed else protos.access
        rules = {method: _rule(method, access) for method, access in asked.items()}
        self.requirements: Mapping[str, Rule] = MappingProxyType(rules)

    def combined(self, found: Iterable[Rule], method: str, principal: Principal, groups: Words) -> Iterable[Rule]:
        """Return the rules that may decide, in order.

        Args:
            found: the rules of the policy file that match.
            method: what is called.
            principal: who calls.
            groups: of the principal's organization.

        """
        requirement = self.requirements.get(method)
        if requirement is None:
            return found
        rules = list(found)
        answer = _answer(requirement, principal, groups)
        if answer.is_deny or not self._is_narrowed:
            return [*(rule for rule in rules if rule.is_deny), answer]
        return rules


def _answer(requirement: Rule, principal: Principal, groups: Words) -> Rule:
    # Whatever the HTTP method: a GET of Connect calls the same method.
    if not requirement.has_caller(principal, groups):
        return Unmet(name=requirement.name, is_deny=True)
    if not requirement.has_scopes(principal.scopes):
        return Unmet(name=requirement.name, is_deny=True, lacking=requirement.scopes[0])
    return requirement


def _rule(method: str, access: Access) -> Rule:
    return Rule(
        name=f"{PROTO}{method}",
        is_deny=False,
        paths=Patterns.of([method]),
        organizations=access.organizations or None,
        groups=access.groups or None,
        clients=access.clients or None,
        scopes=access.scopes,
    )


def _check_public(protos: Protos, public: Iterable[str]) -> None:
    for index, method in enumerate(public):
        access = protos.access.get(method)
        if access is not None and not access.public:
            raise Fault(
                f"{method!a} is not public in its .proto; say so there, or say override: true here", "public", index
            )


def _check_names(protos: Protos, names: Names) -> None:
    for method, access in protos.access.items():
        try:
            names.check({"organizations": sorted(access.organizations), "groups": sorted(access.groups)})
        except Fault as fault:
            raise ConfigError(f"{protos.source}: {method}: {fault.message}") from None


def _assurances(protos: Protos, introspect: Mapping[str, Any], *, overrides: bool) -> Mapping[str, Assurance]:
    """Return the assurances of methods that the file does not name; check that it asks for as much of the others."""
    closest = Closest(introspect)
    found = {}
    for method, access in protos.access.items():
        if access.max_age is None:
            continue
        declared = Assurance(max_age=access.max_age, if_unavailable=access.if_unavailable)
        named = closest.of(method)
        if named is None:
            found[method] = declared
        elif not overrides and not _is_as_sure(Assurance(**introspect[named]), declared):
            raise Fault(
                f"{method!a} would be less sure than its .proto wants: max_age {declared.max_age:g}, if_unavailable "
                f"{declared.if_unavailable}; ask for as much, or say override: true",
                *("introspect", named),
            )
    return found


def _is_as_sure(one: Assurance, other: Assurance) -> bool:
    return one.max_age <= other.max_age and (one.if_unavailable == "deny" or other.if_unavailable == "local")
