"""The claims of test tokens: those of a good token of an application, as a profile of issuers writes them."""

import secrets
from collections.abc import Collection, Mapping
from typing import Any

from authz.demo.issuer.signing import overlay
from authz.token.profiles import CLIENT_ID, TokenProfile

# RFC 6761 section 6.2: no host will ever have this name.
ISSUER = "https://issuer.test"
AUDIENCE = "api.test"
CLIENT = "client_test"

LIFETIME = 300.0
"""Seconds from ``iat`` to ``exp``, unless a test asks for more."""


def claims_of(
    profile: TokenProfile,
    org_id: str,
    now: float,
    *,
    scopes: Collection[str] | str,
    client_id: str | None,
    issuer: str = ISSUER,
    audience: str = AUDIENCE,
    expires_in: float = LIFETIME,
    changes: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the claims of one token.

    Args:
        profile: the names of claims, and what marks the token of an application.
        org_id: the organization.
        now: POSIX seconds.
        scopes: as a list, or as one string with blanks between them.
        client_id: the application, if there is one.
        issuer: ``iss``.
        audience: ``aud``.
        expires_in: seconds from now, perhaps negative; then it was issued as much earlier.
        changes: claims laid over these; ``None`` removes one.

    """
    expires_at = int(now + expires_in)
    granted = scopes if isinstance(scopes, str) else " ".join(scopes)
    application = {
        name: None if client_id is None else value.replace(CLIENT_ID, client_id)
        for name, value in profile.application.items()
    }
    usual = {
        "iss": issuer,
        "aud": audience,
        "sub": client_id,
        profile.client_id: client_id,
        profile.org_id: org_id,
        **dict.fromkeys(profile.scopes[:1], granted or None),
        "jti": secrets.token_hex(16),
        "iat": min(int(now), int(expires_at - LIFETIME)),
        "exp": expires_at,
        **application,
    }
    return overlay(usual, changes)
