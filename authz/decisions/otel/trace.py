"""The trace that a caller sent."""

import itertools

from authz.call.call import MAX_ENTRIES, Call


def sent_by(call: Call) -> dict[str, str]:
    """Return the headers of ``call`` in which a trace is looked for, as a carrier of OpenTelemetry."""
    # Limited, because a call that was refused for its size may have any number of entries.
    entries = itertools.islice(call.metadata, MAX_ENTRIES)
    return {key: value for key, value in entries if isinstance(value, str)}
