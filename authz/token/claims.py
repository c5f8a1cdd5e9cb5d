"""The claims of one M2M access token: what they must say, and the principal that they name.

Pure: the time is an argument. The result counts only if the signature has been checked.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from sys import intern
from types import MappingProxyType
from typing import Any, NamedTuple

from authz.call.memory import Memory
from authz.call.principal import Principal, new_principal
from authz.call.words import MAX_TIME, ORG_ID_PATTERN, SCOPES, is_identifier
from authz.errors import ClaimError, TokenExpiredError
from authz.token.profiles import CLIENT_ID, PROFILES, TokenProfile

_IS_A_PERSONS = "a user token where an M2M token is needed"

ID_TOKEN_CLAIMS = ("nonce", "at_hash", "c_hash", "s_hash")

_ABSENT = object()
_PLAIN = frozenset((str, int, float, bool, type(None)))

# Applications whose claims need not be checked again; more begin anew. The issuer signs each of them.
_MOST_KNOWN = 1024

# RFC 8705 section 3.1: SHA-256 in base64url, whose last character has two unused bits.
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRules:
    """What the claims of a token must say to name a principal.

    Args:
        issuer: the exact ``iss``.
        audiences: exact values; ``aud`` must hold one of them.
        leeway: seconds by which clocks may differ.
        max_lifetime: the most seconds that ``exp - iat`` may be, or ``None`` for any.
        allow_user_tokens: also accept tokens of persons, which ``profile`` tells apart.
        org_id: what the organization's whole id must match.
        profile: which claims hold organization, application and scopes.

    """

    issuer: str
    audiences: frozenset[str]
    leeway: float = 10.0
    max_lifetime: float | None = None
    allow_user_tokens: bool = False
    org_id: re.Pattern[str] = re.compile(ORG_ID_PATTERN, re.ASCII)
    profile: TokenProfile = PROFILES["workos"]
    repeated: frozenset[str] = field(init=False, repr=False, compare=False)
    known: "Memory[str, _Known]" = field(
        init=False, repr=False, compare=False, default_factory=lambda: Memory[str, _Known](_MOST_KNOWN)
    )

    def __post_init__(self) -> None:
        """Note which claims every token of an application repeats."""
        profile = self.profile
        names = ("iss", "aud", "sub", profile.client_id, profile.org_id, *profile.scopes, *profile.application)
        object.__setattr__(self, "repeated", frozenset(names))


class _Known(NamedTuple):
    """What the tokens of one application have said about it, all in the same words.

    Args:
        claims: what they say; empty for each claim of ``own``.
        own: the claims that each token has for itself, none of which says anything about the application.

    """

    audience: tuple[str, ...]
    subject: str
    client_id: str
    org_id: str
    scopes: frozenset[str]
    claims: dict[str, Any]
    own: tuple[str, ...]


def check_issuer(claims: Mapping[str, Any], rules: ClaimRules) -> None:
    """Check ``iss`` alone, by exact equality: it decides whose keys may be fetched.

    Raises:
        ClaimError: RFC 7519 section 4.1.1, RFC 9068 section 4.

    """
    if _required(claims, "iss") != rules.issuer:
        raise ClaimError("iss", "the token is from another issuer")


def principal_from(
    claims: Mapping[str, Any], rules: ClaimRules, now: float, *, key_id: str = "", key_thumbprint: str = ""
) -> Principal:
    """Check every claim and return the principal that they name.

    If the principal has a ``certificate``, the door must check that the caller has it: that is not checked here.

    Args:
        claims: the payload of a token whose signature has been checked.
        rules: what the claims must say.
        now: POSIX seconds.
        key_id: ``kid`` of the key that verified it.
        key_thumbprint: its thumbprint (RFC 7638).

    Raises:
        TokenExpiredError: ``exp`` passed longer ago than the leeway.
        ClaimError: another claim is missing or wrong.

    """
    known, said = _recalled(claims, rules) or _checked(claims, rules, now)
    issued_at, expires_at = _times(said, rules, now)
    return new_principal(
        org_id=known.org_id,
        client_id=known.client_id,
        subject=known.subject,
        scopes=known.scopes,
        issuer=rules.issuer,
        audience=known.audience,
        token_id=_token_id(said),
        issued_at=issued_at,
        expires_at=expires_at,
        key_id=key_id,
        key_thumbprint=key_thumbprint,
        certificate=_certificate(said) if "cnf" in said else "",
        tenant="",
        claims=MappingProxyType(said),
    )


def _recalled(claims: Mapping[str, Any], rules: ClaimRules) -> tuple[_Known, dict[str, Any]] | None:
    """Return what is known of an application, and the claims, if they say about it what has been checked before."""
    subject = claims.get("sub")
    known = rules.known.get(subject) if type(subject) is str else None
    if known is None:
        return None
    said = known.claims.copy()
    for name in known.own:
        value = claims.get(name)
        said[name] = value if type(value) in _PLAIN else _frozen(value)
    # The same claims, no more and no less, and all but those of its own in the same words.
    return (known, said) if said == claims else None


def _checked(claims: Mapping[str, Any], rules: ClaimRules, now: float) -> tuple[_Known, dict[str, Any]]:
    """Check every claim but ``cnf``, in the order in which errors count, and know the application from now on."""
    said = _read_only(claims, rules)
    check_issuer(said, rules)
    audience = _audience(said, rules)
    _times(said, rules, now)
    _check_kind(said)
    subject, client_id = _parties(said, rules)
    org_id = _required(said, rules.profile.org_id)
    if not isinstance(org_id, str) or not rules.org_id.fullmatch(org_id) or not is_identifier(org_id):
        raise ClaimError(rules.profile.org_id)
    _token_id(said)
    scopes = _scopes(said, rules.profile)
    own = tuple(name for name in said if name not in rules.repeated)
    known = _Known(audience, subject, client_id, org_id, scopes, said | dict.fromkeys(own), own)
    # Of text only equal text is the same words: what is a list here may be text in the next token, or 1 be true.
    if all(type(said[name]) is str for name in rules.repeated if name in said):
        rules.known.remember(subject, known)
    return known, said


def is_expired(expires_at: float, leeway: float, now: float) -> bool:
    """Say whether a token has passed its ``exp``: "on or after" is too late (RFC 7519 section 4.1.4)."""
    return expires_at <= now - leeway


def _audience(claims: Mapping[str, Any], rules: ClaimRules) -> tuple[str, ...]:
    value = _required(claims, "aud")
    audience = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(item, str) for item in audience) or rules.audiences.isdisjoint(audience):
        raise ClaimError("aud", "the token is for another audience")
    return audience


def _times(claims: Mapping[str, Any], rules: ClaimRules, now: float) -> tuple[float | None, float]:
    expires_at = _time(claims, "exp")
    if expires_at is None:
        raise ClaimError("exp", missing=True)
    if is_expired(expires_at, rules.leeway, now):
        raise TokenExpiredError
    issued_at, not_before, latest = _time(claims, "iat"), _time(claims, "nbf"), now + rules.leeway
    if not_before is not None and not_before > latest:
        raise ClaimError("nbf", "nbf lies in the future")
    if issued_at is not None and issued_at > latest:
        raise ClaimError("iat", "iat lies in the future")
    if rules.max_lifetime is not None:
        if issued_at is None:
            raise ClaimError("iat", missing=True)
        if expires_at - issued_at > rules.max_lifetime:
            raise ClaimError("exp", "the token lives longer than is allowed")
    return issued_at, expires_at


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name, _ABSENT)
    if value is _ABSENT:
        return None
    # In Python bool is an int, but it is not a time; nor is JSON's null. NaN lies in no range.
    if type(value) not in (int, float) or not 0 <= value <= MAX_TIME:
        raise ClaimError(name)
    return float(value)


def _check_kind(claims: Mapping[str, Any]) -> None:
    for name in ID_TOKEN_CLAIMS:
        if name in claims:
            raise ClaimError(name, "an ID token is no access token")


def _token_id(claims: Mapping[str, Any]) -> str:
    token_id = claims.get("jti", "")
    if not isinstance(token_id, str):
        raise ClaimError("jti")
    return token_id


def _certificate(claims: Mapping[str, Any]) -> str:
    confirmation = claims["cnf"]
    if isinstance(confirmation, Mapping) and confirmation.keys() == {"x5t#S256"}:
        thumbprint = confirmation["x5t#S256"]
        if isinstance(thumbprint, str) and _THUMBPRINT.fullmatch(thumbprint):
            return thumbprint
    # RFC 7800 section 3.1, RFC 9449 section 7.2: the token is bound to a key whose proof no door here can check, so it
    # must not pass as a bearer token.
    raise ClaimError("cnf", "bound to a key in a way that is not accepted")


def _parties(claims: Mapping[str, Any], rules: ClaimRules) -> tuple[str, str]:
    profile = rules.profile
    subject = _identifier(claims, "sub")
    is_named = profile.client_id in claims
    client_id = _identifier(claims, profile.client_id) if is_named else ""
    if rules.allow_user_tokens:
        return subject, client_id
    if not is_named:
        if not profile.is_client_id_optional:
            raise ClaimError(profile.client_id, missing=True)
        client_id = subject
    for name in profile.person:
        if name in claims:
            raise ClaimError(name, _IS_A_PERSONS)
    for name, value in profile.application.items():
        if _required(claims, name) != value.replace(CLIENT_ID, client_id):
            raise ClaimError(name, f"{name} is not that of an application: {_IS_A_PERSONS}")
    if subject.startswith(profile.person_subjects):
        raise ClaimError("sub", _IS_A_PERSONS)
    return subject, client_id


def _identifier(claims: Mapping[str, Any], name: str) -> str:
    value = _required(claims, name)
    if not isinstance(value, str) or not is_identifier(value):
        raise ClaimError(name)
    return value


def _scopes(claims: Mapping[str, Any], profile: TokenProfile) -> frozenset[str]:
    name = next((name for name in profile.scopes if name in claims), None)
    value = "" if name is None else claims[name]
    if isinstance(value, tuple) and all(isinstance(word, str) for word in value):
        value = " ".join(value)
    if not isinstance(value, str) or not SCOPES.fullmatch(value):
        raise ClaimError(str(name))
    return _words(value)


# There are few sets of scopes: remembered tokens share them.
@lru_cache(1024)
def _words(scope: str) -> frozenset[str]:
    return frozenset(scope.split())


def _required(claims: Mapping[str, Any], name: str) -> Any:
    if name not in claims:
        raise ClaimError(name, missing=True)
    return claims[name]


def _read_only(claims: Mapping[str, Any], rules: ClaimRules) -> dict[str, Any]:
    # Most values are the same in all tokens of an application: thousands of remembered tokens share them.
    return {
        intern(name): intern(value)
        if type(value) is str and name in rules.repeated
        else value
        if type(value) in _PLAIN
        else _frozen(value)
        for name, value in claims.items()
    }


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return MappingProxyType({name: _frozen(item) for name, item in value.items()})
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
