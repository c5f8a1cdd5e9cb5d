"""How much each organization uses: counted by every replica, and added up in the store."""

from authz.store.usage.counts import UsageStore

__all__ = ["UsageStore"]
