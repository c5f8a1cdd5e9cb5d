"""Bounds on what one client may cost, for every engine."""

MAX_CONCURRENT_STREAMS = 1024
"""Calls at once on one connection: ten times what Envoy has open in a busy second; further calls wait at the client."""

MAX_QUEUED_CALLS = 8 * MAX_CONCURRENT_STREAMS
"""Calls of all connections that wait for the interpreter: as many as eight Envoys may have open. By default gRPC
cancels calls at random from 1000 on, good ones too, and a client opens and resets that many in a tenth of a second."""

MAX_METADATA_BYTES = 16 * 1024
"""Headers of one call. Envoy's own are a few hundred bytes: the caller's headers come in the message."""

KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS = 60_000, 20_000
"""After how long a silent connection is pinged, and after how long without an answer it counts as dead."""

MIN_PING_INTERVAL_MS = 10_000
"""How often a client may ping the server."""
