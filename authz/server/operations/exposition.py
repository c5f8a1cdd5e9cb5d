"""The two text formats of figures, and which of them a client wants: that of Prometheus, or OpenMetrics 1.0.0."""

from collections.abc import Callable
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics


class Format(NamedTuple):
    """A format.

    Args:
        content_type: what it is called in an answer.
        write: writes all figures of a registry.

    """

    content_type: str
    write: Callable[[CollectorRegistry], bytes]


PLAIN = Format("text/plain; version=0.0.4; charset=utf-8", generate_latest)
OPEN_METRICS = Format("application/openmetrics-text; version=1.0.0; charset=utf-8", openmetrics.generate_latest)

_VERSIONS = {"application/openmetrics-text": ("1.0.0", OPEN_METRICS), "text/plain": ("0.0.4", PLAIN)}


def format_for(accept: str) -> Format:
    """Return the format that a client likes best, and that of Prometheus where it says nothing (RFC 9110, 12.5.1).

    Args:
        accept: the value of the header ``Accept``.

    """
    liked = dict.fromkeys((OPEN_METRICS, PLAIN), 0.0)
    for each in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in each.split(";"))
        given = {name.strip(): value.strip() for name, _, value in (part.partition("=") for part in parameters)}
        version, found = _VERSIONS.get(kind, ("", None))
        if found is not None and given.get("version", version) == version:
            liked[found] = max(liked[found], _quality(given.get("q", "1")))
    return OPEN_METRICS if 0 < liked[OPEN_METRICS] >= liked[PLAIN] else PLAIN


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
