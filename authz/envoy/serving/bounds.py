"""What one client may cost, whichever engine serves it."""

MAX_CONCURRENT_STREAMS = 1024
"""Calls at once on one connection: ten times what Envoy has open in a busy second; more of them wait at the client."""

MAX_REQUEST_BYTES = 16 * 1024 * 1024
"""One question. The caller's headers come in it, so that limits of metadata do not bound them, and what is too large
is an RPC error, which ``failure_mode_allow`` lets through: there is room for the 8 MiB of headers that an Envoy may be
told to take (60 KiB by default), and for a buffered body. The native engine has no such limit."""

MAX_METADATA_BYTES = 16 * 1024
"""Headers of one call. Envoy's own are a few hundred bytes: the caller's headers come in the message."""

KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS = 60_000, 20_000
"""After how long a silent connection is asked for a sign of life, and when it counts as dead without one."""

MIN_PING_INTERVAL_MS = 10_000
"""How often a client may ask for one itself."""
