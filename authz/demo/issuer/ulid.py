"""Ids like WorkOS's."""

import secrets

# Crockford's base 32; a ULID has 26 characters of it.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_ulid() -> str:
    """Return 26 characters that look like a ULID of these years."""
    return "01" + "".join(secrets.choice(_ALPHABET) for _ in range(24))
