"""How much each organization uses: counted by every replica, and added up in the store."""
