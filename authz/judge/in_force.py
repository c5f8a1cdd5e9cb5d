"""The policy in force, and the check of which organization requests are about: replaced together, in one step."""

from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

from authz.call.call import check_methods
from authz.call.principal import ANONYMOUS, Principal
from authz.organizations.quota import Quota
from authz.policy import Policy


class Isolation(Protocol):
    """Checks which organization a request is about, for a door that sees it: :mod:`authz.http.isolation`."""

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to check in any request."""

    def looks_at(self, method: str, /) -> bool:
        """Say whether a verdict on a call to ``method`` depends on its request, or on more of its path."""

    def check_request(self, path: str, verb: str, principal: Principal, body: Callable[[], bytes], /) -> None:
        """Check that a request of ``principal`` names no other organization.

        Raises:
            PermissionDeniedError: it names one, or may name one.

        """


class Rules(NamedTuple):
    """What is in force at one moment.

    Args:
        policy: the policy, if there is one.
        isolation: checks which organization requests are about, if anything does.
        public: the methods that need no token, unless a route asks for more.

    """

    policy: Policy | None
    isolation: Isolation | None
    public: frozenset[str]

    def quota_of(self, principal: Principal) -> Quota | None:
        """Return the plan that the policy gives the organization of ``principal``, if it gives it one."""
        policy = self.policy
        if policy is None or not policy.has_quotas or principal is ANONYMOUS:
            return None
        return policy.organization(principal.org_id).quota


class InForce:
    """What calls are decided by.

    Args:
        policy: the policy, if there is one.
        public_methods: methods that are public whatever the policy says.
        check: checks that a policy can work here, or raises a :class:`authz.errors.ConfigError`.
        changed: is called when something else is in force.

    Attributes:
        now: what is in force; another object once it has been replaced.
        public_methods: those of the argument.

    Raises:
        ConfigError: a method is no full name, or the policy cannot work here.

    """

    def __init__(
        self,
        policy: Policy | None,
        public_methods: Collection[str],
        check: Callable[[Policy | None], object],
        changed: Callable[[], object],
    ) -> None:
        self._check, self._changed = check, changed
        self.public_methods = check_methods(public_methods, "public_methods")
        self.now = Rules(None, None, self.public_methods)
        self.replace(policy)

    def replace(self, policy: Policy | None, isolation: Isolation | None = None) -> None:
        """Decide by another policy, and by another isolation unless that is ``None``, from the next call on.

        Raises:
            ConfigError: the policy cannot work here; what is in force stays so.

        """
        self._check(policy)
        public = self.public_methods if policy is None else self.public_methods | policy.public
        self.now = Rules(policy, self.now.isolation if isolation is None else isolation, public)
        self._changed()
