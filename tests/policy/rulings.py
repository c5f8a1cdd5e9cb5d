"""Which rule of a policy decides about a call, as the policy itself says."""

from authz.call.call import Call
from authz.call.principal import Principal
from authz.errors import PermissionDeniedError
from authz.policy import Policy


def ruling_of(policy: Policy, call: Call, who: Principal) -> tuple[str, str] | None:
    """Return in which list of rules the one is that decides, and its name; ``None`` if no rule matches."""
    try:
        return "allow_rules", policy.admit(call, who)
    except PermissionDeniedError as error:
        return ("deny_rules", error.rule) if error.rule else None
