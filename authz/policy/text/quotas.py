"""The quotas of a policy: the plans, by name, and which organizations have them."""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from authz.organizations.quota import Quota, counter_of
from authz.runtime.configuration import extra
from authz.runtime.text.document import Fault
from authz.runtime.text.schema import did_you_mean


def quotas_from(data: Mapping[str, Any]) -> dict[str, Quota]:
    """Return the plans of a document, by name; it has been checked against the schema.

    Raises:
        Fault: a plan limits nothing, or the default is none of them.

    """
    quotas: dict[str, Quota] = {}
    for name, plan in data.get("quotas", {}).items():
        try:
            quotas[name] = _quota(name, plan)
        except Fault as fault:
            raise fault.within("quotas", name) from None
    if "default_quota" in data:
        check_name(data["default_quota"], quotas, "default_quota")
    return quotas


def check_name(name: str, quotas: Collection[str], key: str) -> None:
    """Check that there is a plan of a name, which ``key`` gives to an organization.

    Raises:
        Fault: there is none.

    """
    if name not in quotas:
        raise Fault(f"unknown quota {name!a}{did_you_mean(name, quotas) or '; quotas lacks it'}", key)


def check_used(quotas: Iterable[str], used: Collection[str | None]) -> None:
    """Check that each plan is one of those that organizations have.

    Raises:
        Fault: no organization has one of them.

    """
    for name in (name for name in quotas if name not in used):
        raise Fault(f"no organization has the quota {name!a}; give it to one, or set default_quota", "quotas", name)


def _quota(name: str, plan: Mapping[str, Any]) -> Quota:
    if not plan:
        raise Fault(f"quota {name!a} limits nothing; give requests_per_second, concurrent_streams or both")
    rate = plan.get("requests_per_second")
    if rate is None:
        if "burst" in plan:
            raise Fault("burst needs requests_per_second, at which it is refilled", "burst")
        return Quota(name, concurrent_streams=plan["concurrent_streams"])
    quota = Quota(name, float(rate), plan.get("burst", math.ceil(rate)), plan.get("concurrent_streams"))
    needs, error = "requests_per_second needs the extra 'policy'", lambda message: Fault(message, "requests_per_second")
    with extra("policy", needs, package="pyrate_limiter", error=error):
        counter_of(float(rate), quota.burst)
    return quota
