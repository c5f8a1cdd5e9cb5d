"""Who makes a call, and how the code that serves it learns that."""

from collections.abc import Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

_NO_CLAIMS: Mapping[str, Any] = MappingProxyType({})


class _Referable:
    """What can be referred to without being kept alive; apart, because only so two classes are laid out alike."""

    __slots__ = ("__weakref__",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal(_Referable):
    """Who makes a call, as the issuer's signature vouches for it; only the tenant is from the API's owner.

    Args:
        org_id: the one organization that the caller acts for (``org_id``).
        client_id: the M2M application (``client_id``, RFC 9068 section 2.2).
        subject: ``sub``; for an M2M token the same as ``client_id``.
        scopes: the granted scopes, case-sensitive (RFC 6749 section 3.3).
        issuer: ``iss``.
        audience: ``aud``, always as a tuple.
        token_id: ``jti``, or an empty string; for revocation and audit, never a ground for trust.
        issued_at: ``iat`` in POSIX seconds, or ``None`` where the token has none.
        expires_at: ``exp`` in POSIX seconds.
        key_id: ``kid`` of the key that signed the token.
        key_thumbprint: that key's (RFC 7638), since several may share a ``kid``; or an empty string where it is
            not known. It does not count when two callers are compared.
        certificate: thumbprint of the one client certificate that the token may be used with
            (``x5t#S256``, RFC 8705 section 3.1), or an empty string for a bearer token.
        tenant: the API owner's own id for the organization, from the policy or the directory; or an empty string.
        claims: every claim of the token, read-only at every depth.

    """

    org_id: str
    client_id: str
    subject: str
    scopes: frozenset[str] = frozenset()
    issuer: str = ""
    audience: tuple[str, ...] = ()
    token_id: str = ""
    issued_at: float | None = None
    expires_at: float = 0.0
    key_id: str = ""
    key_thumbprint: str = field(default="", compare=False, repr=False)
    certificate: str = ""
    tenant: str = ""
    claims: Mapping[str, Any] = field(default_factory=lambda: _NO_CLAIMS, hash=False, repr=False)


class _Open(_Referable):
    """A principal in the making: its slots, and nothing that guards them."""

    __slots__ = tuple(Principal.__slots__)


def new_principal(
    *,
    org_id: str,
    client_id: str,
    subject: str,
    scopes: frozenset[str],
    issuer: str,
    audience: tuple[str, ...],
    token_id: str,
    issued_at: float | None,
    expires_at: float,
    key_id: str,
    key_thumbprint: str,
    certificate: str,
    tenant: str,
    claims: Mapping[str, Any],
) -> Principal:
    """Return a principal of all its fields, at a third of what its constructor costs, which sets frozen ones."""
    made: Any = _Open()
    made.org_id = org_id
    made.client_id = client_id
    made.subject = subject
    made.scopes = scopes
    made.issuer = issuer
    made.audience = audience
    made.token_id = token_id
    made.issued_at = issued_at
    made.expires_at = expires_at
    made.key_id = key_id
    made.key_thumbprint = key_thumbprint
    made.certificate = certificate
    made.tenant = tenant
    made.claims = claims
    made.__class__ = Principal
    principal: Principal = made
    return principal


ANONYMOUS = Principal(org_id="", client_id="", subject="")
"""The unknown caller of a public method. Compare with ``is``."""

_current: ContextVar[Principal] = ContextVar("authz_principal")


def current_principal() -> Principal:
    """Return who makes the RPC that this code serves, or ``ANONYMOUS`` on a public method.

    Raises:
        LookupError: no interceptor of this package has seen the RPC (or this is another thread).

    """
    try:
        return _current.get()
    except LookupError:
        raise LookupError(
            "no principal here: this code does not run inside an RPC that AuthzInterceptor admitted"
            " (a test that calls it directly: with authz.testing.acting_as(…))"
        ) from None


def set_current_principal(principal: Principal) -> Token[Principal]:
    """Make ``principal`` what :func:`current_principal` returns for the rest of this context.

    Doors call it on every RPC, public ones too, so that a context that RPCs share never holds an earlier caller.
    What it returns takes that back, by :func:`reset_current_principal`.
    """
    return _current.set(principal)


def reset_current_principal(token: Token[Principal]) -> None:
    """Have :func:`current_principal` return again what it did before, or raise where there was no caller.

    Args:
        token: what :func:`set_current_principal` returned in this context.

    """
    _current.reset(token)
