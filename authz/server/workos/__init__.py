"""WorkOS as a source of orders: what happens there is in force here within seconds."""
