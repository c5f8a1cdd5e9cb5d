"""The commands about orders to all replicas that share a store, and about the replicas."""

from authz.cli.orders import giving, listing, replicas  # noqa: F401 - each adds its commands
