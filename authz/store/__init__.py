"""What replicas share by a Valkey or Redis: orders, quotas and usage. Nothing of it is imported without a store."""
