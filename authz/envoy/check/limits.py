"""A quota in Envoy's terms, for its filters after ext_authz."""

import math
from typing import Any

from authz.organizations.quota import Quota

# In seconds; Envoy also has weeks, months and years, but does not document their lengths.
_UNITS = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86_400}


def facts_of(quota: Quota) -> dict[str, Any]:
    """Return the dynamic metadata about ``quota`` for Envoy, ready for a ``Struct``.

    ``limit`` has the form of ``RateLimit.Override`` of Envoy's filter ratelimit.
    """
    facts: dict[str, Any] = {"quota": quota.name}
    rate = quota.requests_per_second
    if rate is not None:
        facts |= {"requests_per_second": rate, "burst": quota.burst, "limit": _limit(rate)}
    if quota.concurrent_streams is not None:
        facts["concurrent_streams"] = quota.concurrent_streams
    return facts


def _limit(rate: float) -> dict[str, Any]:
    """Return the rate per the shortest unit in which it is a whole number, or else rounded down per day."""
    counts = {unit: round(rate * seconds, 6) for unit, seconds in _UNITS.items()}
    unit = next((unit for unit, count in counts.items() if count.is_integer()), "DAY")
    return {"requests_per_unit": math.floor(counts[unit]), "unit": unit}
