"""What is asked of a caller besides a good token."""

from dataclasses import dataclass
from typing import Literal

from authz.errors import ConfigError

ACTIVE_SECONDS = 30.0
"""Seconds for which an issuer's answer that a token is active is believed, at the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What the operator of a door requires of a caller in addition to a valid token; it can only narrow access.

    Args:
        audience: what ``aud`` must name in addition to what the verifier requires; empty for nothing more.
        scopes: what the token must grant, all of it (RFC 6749 section 3.3).
        policy: the name of the policy that decides; empty for the default policy.
        mistake: what is wrong in the configuration of these requirements; every call is refused then.

    """

    audience: str = ""
    scopes: frozenset[str] = frozenset()
    policy: str = ""
    mistake: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assurance:
    """How sure a method must be that a token has not been withdrawn.

    Args:
        max_age: seconds that the issuer's word may be old; 0 asks for every call. At most 30.
        if_unavailable: while the issuer does not answer, or says itself that it fails (HTTP status 5xx), ``deny``
            (UNAVAILABLE), or ``local``: believe the signature. Whatever else keeps it from being asked, a limit or
            a mistake, is UNAVAILABLE.

    Raises:
        ConfigError: an argument that cannot be.

    """

    max_age: float = 0.0
    if_unavailable: Literal["deny", "local"] = "deny"

    def __post_init__(self) -> None:
        """Check the arguments."""
        if not 0 <= self.max_age <= ACTIVE_SECONDS:
            raise ConfigError(f"max_age: {self.max_age!r} is not a number of seconds from 0 to {ACTIVE_SECONDS:g}")
        if self.if_unavailable not in ("deny", "local"):
            raise ConfigError(f"if_unavailable: {self.if_unavailable!a} must be deny or local")
