"""What one client may cost, whichever engine serves it."""

MAX_CONCURRENT_STREAMS = 1024
"""Calls at once on one connection: ten times what Envoy has open in a busy second; more of them wait at the client."""

MAX_QUEUED_CALLS = 8 * MAX_CONCURRENT_STREAMS
"""Calls that wait for the interpreter, of all connections: as many as eight Envoys may have open. From 1000 on gRPC
would cancel calls at random, good ones too, and it takes a client a tenth of a second to open and reset so many."""

MAX_METADATA_BYTES = 16 * 1024
"""Headers of one call. Envoy's own are a few hundred bytes: the caller's headers come in the message."""

KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS = 60_000, 20_000
"""After how long a silent connection is asked for a sign of life, and when it counts as dead without one."""

MIN_PING_INTERVAL_MS = 10_000
"""How often a client may ask for one itself."""
