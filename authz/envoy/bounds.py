"""What one client may cost, whichever engine serves it."""

MAX_CONCURRENT_STREAMS = 1024
"""Calls at once on one connection: ten times what Envoy has open in a busy second; more of them wait at the client."""

MAX_METADATA_BYTES = 16 * 1024
"""Headers of one call. Envoy's own are a few hundred bytes: the caller's headers come in the message."""

KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS = 60_000, 20_000
"""After how long a silent connection is asked for a sign of life, and when it counts as dead without one."""

MIN_PING_INTERVAL_MS = 10_000
"""How often a client may ask for one itself."""
