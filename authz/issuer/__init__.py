"""An issuer: its endpoints, its keys, its word on tokens, and tokens from it."""
