"""What each organization may do: the rules of an API's owner, in one file (a superset of gRFC A43)."""

from authz.organizations.organization import Organization
from authz.policy.policy import Policy
from authz.policy.rules import Rule

__all__ = ["Organization", "Policy", "Rule"]
