"""The commands about orders to all replicas that share a store, and about the replicas."""
