"""A quota in Envoy's words, for its filters behind ext_authz."""

import math
from typing import Any

from authz.organizations.quota import Quota

# In seconds; Envoy also knows weeks, months and years, whose lengths it does not say.
_UNITS = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86_400}


def facts_of(quota: Quota) -> dict[str, Any]:
    """Return what Envoy's dynamic metadata says of ``quota``, ready for a ``Struct``.

    ``limit`` has the form that ``RateLimit.Override`` of Envoy's filter ratelimit wants.
    """
    facts: dict[str, Any] = {"quota": quota.name}
    rate = quota.requests_per_second
    if rate is not None:
        facts |= {"requests_per_second": rate, "burst": quota.burst, "limit": _limit(rate)}
    if quota.concurrent_streams is not None:
        facts["concurrent_streams"] = quota.concurrent_streams
    return facts


def _limit(rate: float) -> dict[str, Any]:
    """Return the rate as a whole number per the shortest unit in which it is one, or else rounded down per day."""
    counts = {unit: round(rate * seconds, 6) for unit, seconds in _UNITS.items()}
    unit = next((unit for unit, count in counts.items() if count.is_integer()), "DAY")
    return {"requests_per_unit": math.floor(counts[unit]), "unit": unit}
